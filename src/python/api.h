/* SPDX-License-Identifier: Apache-2.0 */
/* What of CPython's stable interface (docs.python.org/3/c-api/stable.html, PEP 384) call.c takes,
 * found in the process at run time: nothing here links Python or wants its headers, and one library
 * serves every version from 3.10 on, with an interpreter's lock or without. The layouts are those
 * of its headers; a PyObject is touched by its functions alone. */
#ifndef UM_PYTHON_API_H
#define UM_PYTHON_API_H

#include <stdint.h>

typedef struct PyObject PyObject;
typedef struct PyThreadState PyThreadState;
typedef intptr_t Py_ssize_t;

typedef struct {
    const char *name;
    PyObject *(*method)(PyObject *self, PyObject *arguments);
    int flags;
    const char *doc;
} PyMethodDef;
typedef struct {
    const char *name;
    PyObject *(*get)(PyObject *self, void *closure);
    int (*set)(PyObject *self, PyObject *value, void *closure);
    const char *doc;
    void *closure;
} PyGetSetDef;
typedef struct {
    int slot;
    void *content;
} PyType_Slot;
typedef struct {
    const char *name;
    int basicsize, itemsize;
    unsigned flags;
    PyType_Slot *slots;
} PyType_Spec;
typedef struct {
    void *buf;
    PyObject *obj;
    Py_ssize_t len, itemsize;
    int readonly, ndim;
    char *format;
    Py_ssize_t *shape, *strides, *suboffsets;
    void *internal;
} Py_buffer;

enum { Py_tp_call = 50, Py_tp_dealloc = 52, Py_tp_methods = 64, Py_tp_new = 65 };
enum { Py_tp_getset = 73, Py_tp_free = 74 };
enum { METH_VARARGS = 1, METH_NOARGS = 4, METH_CLASS = 16 };
enum { PyBUF_STRIDES = 0x18, PyBUF_FORMAT = 4 };
#define Py_TPFLAGS_DEFAULT (1U << 18)
#define Py_TPFLAGS_BASETYPE (1U << 10)

#define UM_PYTHON(X)                                                                          \
    X(void, Py_IncRef, (PyObject *))                                                          \
    X(void, Py_DecRef, (PyObject *))                                                          \
    X(int, Py_IsInitialized, (void))                                                          \
    X(PyObject *, PyType_FromSpec, (PyType_Spec *))                                           \
    X(void *, PyType_GetSlot, (PyObject *, int))                                              \
    X(PyObject *, PyType_GenericAlloc, (PyObject *, Py_ssize_t))                              \
    X(PyObject *, PyObject_Type, (PyObject *))                                                \
    X(PyObject *, PyObject_GetAttrString, (PyObject *, const char *))                         \
    X(PyObject *, PyObject_CallMethod, (PyObject *, const char *, const char *, ...))         \
    X(PyObject *, PyObject_CallFunctionObjArgs, (PyObject *, ...))                            \
    X(int, PyObject_CheckBuffer, (PyObject *))                                                \
    X(int, PyObject_GetBuffer, (PyObject *, Py_buffer *, int))                                \
    X(void, PyBuffer_Release, (Py_buffer *))                                                  \
    X(long, PyLong_AsLong, (PyObject *))                                                      \
    X(void *, PyLong_AsVoidPtr, (PyObject *))                                                 \
    X(PyObject *, PyLong_FromVoidPtr, (void *))                                               \
    X(PyObject *, PyLong_FromLong, (long))                                                    \
    X(PyObject *, PyLong_FromUnsignedLongLong, (unsigned long long))                          \
    X(PyObject *, PyFloat_FromDouble, (double))                                               \
    X(PyObject *, PyBool_FromLong, (long))                                                    \
    X(Py_ssize_t, PyTuple_Size, (PyObject *))                                                 \
    X(PyObject *, PyTuple_GetItem, (PyObject *, Py_ssize_t))                                  \
    X(int, PyArg_ParseTuple, (PyObject *, const char *, ...))                                 \
    X(int, PyArg_ParseTupleAndKeywords, (PyObject *, PyObject *, const char *, char **, ...)) \
    X(void, PyErr_Fetch, (PyObject **, PyObject **, PyObject **))                             \
    X(void, PyErr_Restore, (PyObject *, PyObject *, PyObject *))                              \
    X(void, PyErr_Clear, (void))                                                              \
    X(void, PyErr_SetString, (PyObject *, const char *))                                      \
    X(void, PyErr_WriteUnraisable, (PyObject *))                                              \
    X(PyThreadState *, PyEval_SaveThread, (void))                                             \
    X(void, PyEval_RestoreThread, (PyThreadState *))                                          \
    X(PyObject *, PyUnicode_DecodeUTF8, (const char *, Py_ssize_t, const char *))             \
    X(PyThreadState *, PyGILState_GetThisThreadState, (void))                                 \
    X(int, PyGILState_Ensure, (void))                                                         \
    X(void, PyGILState_Release, (int))
#define UM_PYTHON_DATA(X)          \
    X(PyObject, PyBaseObject_Type) \
    X(PyObject *, PyExc_TypeError)

#endif
