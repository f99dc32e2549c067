/* SPDX-License-Identifier: Apache-2.0 */
/* A frame of Python's: `pipeline(image)`, and the packet that it gives. The rest of both classes
 * is python/ultramotion/pipeline.py and packet.py. */
#include "ultramotion/python.h"

#include "base/status.h"
#include "base/thread.h"
#include "python/api.h"
#include "ultramotion/frame.h"
#include "ultramotion/packet.h"
#include "ultramotion/pipeline.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define FUNCTION(result, name, arguments) static result(*name) arguments;
#define DATA(type, name) static type *name;
UM_PYTHON(FUNCTION)
UM_PYTHON_DATA(DATA)

static int forks;      /* that this process comes after */
static size_t head;    /* bytes of an object that are Python's */
static PyObject *view; /* address of an um_packet -> its fields */

/* A packet: a reference to it. */
struct kept {
    const um_packet *packet;
    PyObject *image; /* what it was made of, or None */
    int forks;       /* of the process whose reference it is: in others nobody takes it back */
};

/* A pipeline: whose turn it is, and who is in it. */
struct turns {
    um_pipeline *pipeline; /* NULL until _begin() */
    PyObject *packet_type;
    int forks;
    atomic_int users; /* the owner, until _end(), and each call: when the last one goes it closes */
    atomic_bool ended;
    pthread_mutex_t turn;
    bool running;   /* under `turn`, as all below: a run has it */
    uint64_t taken; /* images that had no number of their own */
};

static void *own(PyObject *object)
{
    return (char *)object + head;
}

static void free_object(PyObject *self)
{
    PyObject *type = PyObject_Type(self);
    void *slot = PyType_GetSlot(type, Py_tp_free);
    void (*release)(void *);
    memcpy(&release, &slot, sizeof release);
    release(self);
    Py_DecRef(type);
    Py_DecRef(type); /* that of the object */
}

/* ---- packets ---- */

static PyObject *packet_of(PyObject *type, const um_packet *packet, PyObject *image)
{
    PyObject *self = PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    Py_IncRef(image);
    *(struct kept *)own(self) = (struct kept){packet, image, forks};
    return self;
}

static PyObject *packet_from(PyObject *type, PyObject *arguments)
{
    PyObject *address, *image;
    if (!PyArg_ParseTuple(arguments, "OO:_of", &address, &image))
        return NULL;
    return packet_of(type, PyLong_AsVoidPtr(address), image);
}

static PyObject *packet_new(PyObject *type, PyObject *arguments, PyObject *keywords)
{
    (void)type, (void)arguments, (void)keywords;
    PyErr_SetString(*PyExc_TypeError, "packets come from a pipeline");
    return NULL;
}

static void packet_free(PyObject *self)
{
    struct kept *k = own(self);
    if (k->packet && k->forks == forks)
        um_packet_unref(&k->packet);
    Py_DecRef(k->image);
    free_object(self);
}

static PyObject *packet_address(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromVoidPtr((void *)(uintptr_t)((struct kept *)own(self))->packet);
}

static PyObject *packet_struct(PyObject *self, void *closure)
{
    PyObject *address = packet_address(self, closure);
    PyObject *fields = address ? PyObject_CallFunctionObjArgs(view, address, NULL) : NULL;
    if (address)
        Py_DecRef(address);
    return fields;
}

/* Numbers that are looked at in every frame. */
#define NUMBER(field, make)                                        \
    static PyObject *packet_##field(PyObject *self, void *closure) \
    {                                                              \
        (void)closure;                                             \
        return make(((struct kept *)own(self))->packet->field);    \
    }
NUMBER(frame_id, PyLong_FromUnsignedLongLong)
NUMBER(ts, PyFloat_FromDouble)
NUMBER(label, PyLong_FromLong)
NUMBER(score, PyFloat_FromDouble)
NUMBER(width, PyLong_FromLong)
NUMBER(height, PyLong_FromLong)

static PyObject *packet_foreign(PyObject *self, void *closure)
{
    (void)closure;
    return PyBool_FromLong(((struct kept *)own(self))->forks != forks);
}

static PyObject *packet_image(PyObject *self, void *closure)
{
    struct kept *k = own(self);
    (void)closure;
    Py_IncRef(k->image);
    return k->image;
}

/* ---- images ---- */

static void release_buffer(void *buffer)
{
    if (Py_IsInitialized()) {
        int state = PyGILState_Ensure();
        PyBuffer_Release(buffer);
        PyGILState_Release(state);
    }
    free(buffer);
}

static um_status wrap(um_frame **out, Py_buffer *b)
{
    Py_ssize_t c = b->ndim == 3 ? b->shape[2] : 1;
    bool bytes = !b->format || strcmp(b->format, "B") == 0;
    if (!bytes || (b->ndim != 2 && b->ndim != 3) || (c != 1 && c != 3) ||
        b->strides[b->ndim - 1] != 1 || b->strides[1] != c || b->shape[0] > UM_FRAME_MAX_SIDE ||
        b->shape[1] > UM_FRAME_MAX_SIDE)
        return UM_EINVAL;
    return um_frame_wrap(out, (int)b->shape[1], (int)b->shape[0], (int)c, b->buf, b->strides[0],
                         release_buffer, b);
}

/* A frame over an array's own pixels; NULL, without an exception: it must be looked at closer. */
static um_frame *frame_over(PyObject *image)
{
    um_frame *frame = NULL;
    Py_buffer *b = PyObject_CheckBuffer(image) ? malloc(sizeof *b) : NULL;
    if (!b)
        return NULL;
    if (PyObject_GetBuffer(image, b, PyBUF_STRIDES | PyBUF_FORMAT) != 0)
        PyErr_Clear();
    else if (wrap(&frame, b) == UM_OK)
        return frame;
    else
        PyBuffer_Release(b);
    free(b);
    return NULL;
}

/* The frame that Python's Frame has, with a reference of its own. */
static um_frame *frame_in(PyObject *image)
{
    PyObject *address = PyObject_CallMethod(image, "_address", NULL);
    um_frame *frame = address ? um_frame_ref(PyLong_AsVoidPtr(address)) : NULL;
    if (address)
        Py_DecRef(address);
    return frame;
}

/* ---- what is said while Python waits ---- */

/* What a function that was called raised on a thread of Python's, until that comes back. */
static _Thread_local PyObject *raised[3];

static bool raise_kept(void)
{
    if (!raised[0])
        return false;
    PyErr_Restore(raised[0], raised[1], raised[2]);
    raised[0] = NULL;
    return true;
}

static void keep_raised(PyObject *function, bool waited_for)
{
    if (waited_for && !raised[0])
        PyErr_Fetch(&raised[0], &raised[1], &raised[2]);
    else
        PyErr_WriteUnraisable(function);
}

void um_python_say(void *function, const char *line)
{
    if (!function || !line || !Py_IsInitialized())
        return;
    bool waited_for = PyGILState_GetThisThreadState() != NULL;
    int state = PyGILState_Ensure();
    PyObject *text = PyUnicode_DecodeUTF8(line, (Py_ssize_t)strlen(line), "replace");
    PyObject *said = text ? PyObject_CallFunctionObjArgs(function, text, NULL) : NULL;
    if (said)
        Py_DecRef(said);
    else
        keep_raised(function, waited_for);
    if (text)
        Py_DecRef(text);
    PyGILState_Release(state);
}

void um_python_raise(void)
{
    raise_kept();
}

/* ---- pipelines ---- */

/* With an exception on its way, too. */
static void leave(PyObject *self)
{
    struct turns *t = own(self);
    PyObject *type, *value, *trace;
    if (atomic_fetch_sub(&t->users, 1) > 1)
        return;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *closed = PyObject_CallMethod(self, "_left", NULL);
    if (closed)
        Py_DecRef(closed);
    else
        PyErr_WriteUnraisable(self);
    PyErr_Restore(type, value, trace);
}

static bool enter(struct turns *t)
{
    int users = t->forks == forks ? atomic_load(&t->users) : 0;
    while (users > 0 && !atomic_compare_exchange_weak(&t->users, &users, users + 1))
        ;
    return users > 0;
}

/* Python raises why there is no packet: for UM_OK, why the frame was not let in. */
static PyObject *refuse(PyObject *self, um_status status)
{
    PyObject *said = PyObject_CallMethod(self, "_refuse", "i", status);
    if (said)
        Py_DecRef(said);
    return NULL;
}

/* A frame's turn, and its packet. `numbered`: it has an id. */
static PyObject *pass(PyObject *self, um_frame **frame, PyObject *image, bool numbered)
{
    struct turns *t = own(self);
    const um_packet *made = NULL;
    PyThreadState *thread = PyEval_SaveThread();
    um_status st = um_turn_take(&t->turn, "an image", "this pipeline");
    if (st == UM_OK) {
        if (!t->running && !atomic_load(&t->ended)) {
            if (!numbered)
                (*frame)->id = t->taken++;
            st = um_pipeline_pass(t->pipeline, frame, &made);
        }
        pthread_mutex_unlock(&t->turn);
    }
    PyEval_RestoreThread(thread);
    bool interrupted = raise_kept();
    if (interrupted || st != UM_OK || !made) {
        um_packet_unref(&made);
        return interrupted ? NULL : refuse(self, st);
    }
    PyObject *packet = packet_of(t->packet_type, made, image);
    if (!packet)
        um_packet_unref(&made);
    return packet;
}

static PyObject *pipeline_call(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"image", NULL};
    PyObject *image, *made, *packet = NULL;
    if (!keywords && PyTuple_Size(arguments) == 1)
        image = PyTuple_GetItem(arguments, 0);
    else if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O:Pipeline", names, &image))
        return NULL;
    if (!enter(own(self)))
        return refuse(self, UM_OK);
    um_frame *frame = frame_over(image);
    if (frame) {
        packet = pass(self, &frame, image, false);
    } else if ((made = PyObject_CallMethod(self, "_frame", "O", image))) {
        if ((frame = frame_in(made)))
            packet = pass(self, &frame, made, made == image);
        Py_DecRef(made);
    }
    um_frame_unref(&frame);
    leave(self);
    return packet;
}

static PyObject *pipeline_begin(PyObject *self, PyObject *arguments)
{
    struct turns *t = own(self);
    PyObject *address, *type;
    if (!PyArg_ParseTuple(arguments, "OO:_begin", &address, &type))
        return NULL;
    t->pipeline = PyLong_AsVoidPtr(address);
    Py_IncRef(t->packet_type = type);
    t->forks = forks;
    um_turn_init(&t->turn);
    atomic_store(&t->users, 1);
    return PyBool_FromLong(1);
}

/* The owner goes. */
static PyObject *pipeline_end(PyObject *self, PyObject *arguments)
{
    struct turns *t = own(self);
    (void)arguments;
    if (t->pipeline && !atomic_exchange(&t->ended, true))
        leave(self);
    return PyBool_FromLong(1);
}

/* False: it is so already. */
static bool set_running(struct turns *t, bool running)
{
    if (t->forks != forks)
        return true; /* who had the lock is not here; the pipeline's handle refuses */
    bool changed = false;
    PyThreadState *thread = PyEval_SaveThread();
    if (um_turn_take(&t->turn, "a run", "this pipeline") == UM_OK) {
        changed = t->running != running;
        t->running = running;
        pthread_mutex_unlock(&t->turn);
    }
    PyEval_RestoreThread(thread);
    return changed;
}

/* For a run, when no call is in it; False: another run has it. */
static PyObject *pipeline_take(PyObject *self, PyObject *arguments)
{
    (void)arguments;
    return PyBool_FromLong(set_running(own(self), true));
}

static PyObject *pipeline_give_back(PyObject *self, PyObject *arguments)
{
    (void)arguments;
    return PyBool_FromLong(set_running(own(self), false));
}

static void pipeline_free(PyObject *self)
{
    struct turns *t = own(self);
    if (t->pipeline) {
        pthread_mutex_destroy(&t->turn);
        Py_DecRef(t->packet_type);
    }
    free_object(self);
}

/* ---- types ---- */

static PyMethodDef packet_methods[] = {
    {"_of", packet_from, METH_VARARGS | METH_CLASS, NULL},
    {0},
};
static PyGetSetDef packet_fields[] = {
    {"_address", packet_address, NULL, NULL, NULL},
    {"_struct", packet_struct, NULL, NULL, NULL},
    {"_foreign", packet_foreign, NULL, NULL, NULL},
    {"_image", packet_image, NULL, NULL, NULL},
    {"frame_id", packet_frame_id, NULL, NULL, NULL},
    {"ts", packet_ts, NULL, NULL, NULL},
    {"label", packet_label, NULL, NULL, NULL},
    {"score", packet_score, NULL, NULL, NULL},
    {"width", packet_width, NULL, NULL, NULL},
    {"height", packet_height, NULL, NULL, NULL},
    {0},
};
static PyMethodDef pipeline_methods[] = {
    {"_begin", pipeline_begin, METH_VARARGS, NULL},
    {"_end", pipeline_end, METH_NOARGS, NULL},
    {"_take", pipeline_take, METH_NOARGS, NULL},
    {"_give_back", pipeline_give_back, METH_NOARGS, NULL},
    {0},
};

static void forked(void)
{
    forks++;
}

static PyObject *make(const char *name, size_t size, PyType_Slot *slots)
{
    PyType_Spec spec = {name, (int)(head + size), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
                        slots};
    return PyType_FromSpec(&spec);
}

/* What has this name in the process, into the pointer at `place`. */
static void find(void *process, const char *name, void *place, const char **missing)
{
    void *found = dlsym(process, name);
    memcpy(place, &found, sizeof found);
    if (!found)
        *missing = name;
}

um_status um_python_types(void *given, void **types)
{
    const char *missing = NULL;
    if (!given || !types)
        return um_fail(UM_EINVAL, "um_python_types: %s is NULL", given ? "types" : "view");
    void *process = dlopen(NULL, RTLD_LAZY);
    if (!process)
        return um_fail(UM_EUNSUPPORTED, "um_python_types: %s", dlerror());
#define FIND(result, name, arguments) find(process, #name, &name, &missing);
#define FIND_DATA(type, name) find(process, #name, &name, &missing);
    UM_PYTHON(FIND)
    UM_PYTHON_DATA(FIND_DATA)
    dlclose(process);
    if (missing)
        return um_fail(UM_EUNSUPPORTED, "um_python_types: this process has no %s of Python",
                       missing);
    PyObject *size = PyObject_GetAttrString(PyBaseObject_Type, "__basicsize__");
    if (!size)
        return um_fail(UM_EINVAL, "um_python_types: object has no size");
    head = ((size_t)PyLong_AsLong(size) + 15) / 16 * 16;
    Py_DecRef(size);
    PyType_Slot packet[] = {{Py_tp_new, (void *)packet_new},
                            {Py_tp_dealloc, (void *)packet_free},
                            {Py_tp_methods, packet_methods},
                            {Py_tp_getset, packet_fields},
                            {0, NULL}};
    PyType_Slot pipeline[] = {{Py_tp_call, (void *)pipeline_call},
                              {Py_tp_dealloc, (void *)pipeline_free},
                              {Py_tp_methods, pipeline_methods},
                              {0, NULL}};
    PyObject *a = make("ultramotion._c.PacketBase", sizeof(struct kept), packet);
    PyObject *b = a ? make("ultramotion._c.PipelineBase", sizeof(struct turns), pipeline) : NULL;
    if (!b) {
        if (a)
            Py_DecRef(a);
        return um_fail(UM_EINVAL, "um_python_types: Python made no type");
    }
    if (!view)
        pthread_atfork(NULL, NULL, forked);
    Py_IncRef(view = given);
    types[0] = a;
    types[1] = b;
    return UM_OK;
}
