/* SPDX-License-Identifier: Apache-2.0 */
/* The pickle machine (CPython Lib/pickletools.py has the opcodes) without its teeth: GLOBAL yields
 * a name, REDUCE knows the five functions that rebuild tensors and dicts, and every other call
 * yields a value that stands for "some object of that class". There is no recursion; each opcode
 * costs memory in proportion to its bytes. */
#include "weights/pickle.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { PROTOCOL_MAX = 5, NAME_MAX_BYTES = 200, KEY_MAX_BYTES = 64, MEMO_START = 256 };

struct machine {
    struct um_arena *arena;
    const unsigned char *data;
    size_t size, at;
    size_t op_at; /* of the opcode being executed, for messages */
    struct um_pvalue **stack;
    size_t depth, capacity;
    struct um_pvalue **memo;
    size_t memo_capacity, memo_next;
};

static struct um_pvalue mark; /* its address on the stack is the pickle MARK */

/* Modules that no honest weight file names. We call nothing, so this is no defence, it is a warning
 * to the user about the file. */
static const char *const HOSTILE[] = {"os",     "posix",      "nt",    "subprocess", "sys",
                                      "shutil", "socket",     "runpy", "importlib",  "pty",
                                      "ctypes", "webbrowser", "code",  "commands"};
static const char *const HOSTILE_BUILTINS[] = {"eval", "exec",  "execfile",   "compile",
                                               "open", "input", "__import__", "breakpoint"};

static um_status fail_at(const struct machine *m, const char *what)
{
    return um_fail(UM_EFORMAT, "pickle offset %zu: %s", m->op_at, what);
}

static um_status no_memory(const struct machine *m)
{
    return um_fail(UM_ENOMEM, "a value at pickle offset %zu", m->op_at);
}

/* ---- input ---- */

static um_status take(struct machine *m, uint64_t n, const unsigned char **p)
{
    if (n > m->size - m->at)
        return um_fail(UM_EFORMAT, "pickle offset %zu: %" PRIu64 " bytes wanted, %zu left",
                       m->op_at, n, m->size - m->at);
    *p = m->data + m->at;
    m->at += (size_t)n;
    return UM_OK;
}

/* Little-endian unsigned number of 1, 2, 4 or 8 bytes. */
static um_status take_number(struct machine *m, int bytes, uint64_t *n)
{
    const unsigned char *p = NULL;
    um_status st = take(m, (uint64_t)bytes, &p);
    *n = 0;
    for (int i = 0; st == UM_OK && i < bytes; i++)
        *n |= (uint64_t)p[i] << 8 * i;
    return st;
}

static um_status take_line(struct machine *m, const char **s, size_t *n)
{
    const unsigned char *p = m->data + m->at;
    const unsigned char *end = m->at < m->size ? memchr(p, '\n', m->size - m->at) : NULL;
    if (!end)
        return fail_at(m, "a name without end");
    *s = (const char *)p;
    *n = (size_t)(end - p);
    m->at += *n + 1;
    return UM_OK;
}

/* ---- stack ---- */

static um_status push(struct machine *m, struct um_pvalue *v)
{
    if (!v || !um_make_room(&m->stack, &m->capacity, m->depth, 1, sizeof *m->stack))
        return no_memory(m);
    m->stack[m->depth++] = v;
    return UM_OK;
}

static um_status pop(struct machine *m, struct um_pvalue **v)
{
    *v = NULL;
    if (m->depth == 0 || m->stack[m->depth - 1] == &mark)
        return fail_at(m, "the stack is empty");
    *v = m->stack[--m->depth];
    return UM_OK;
}

static um_status top(const struct machine *m, struct um_pvalue **v)
{
    *v = NULL;
    if (m->depth == 0 || m->stack[m->depth - 1] == &mark)
        return fail_at(m, "the stack is empty");
    *v = m->stack[m->depth - 1];
    return UM_OK;
}

/* The values above the last mark; they and the mark leave the stack but stay readable until the
 * next push. */
static um_status pop_mark(struct machine *m, struct um_pvalue ***v, size_t *n)
{
    size_t i = m->depth;
    while (i > 0 && m->stack[i - 1] != &mark)
        i--;
    if (i == 0)
        return fail_at(m, "no mark on the stack");
    *v = m->stack + i;
    *n = m->depth - i;
    m->depth = i - 1;
    return UM_OK;
}

/* ---- values ---- */

static struct um_pvalue *new_value(struct machine *m, enum um_pkind kind)
{
    struct um_pvalue *v = um_arena_take(m->arena, sizeof *v);
    if (v) {
        memset(v, 0, sizeof *v);
        v->kind = kind;
    }
    return v;
}

static struct um_pvalue *new_integer(struct machine *m, enum um_pkind kind, int64_t i)
{
    struct um_pvalue *v = new_value(m, kind);
    if (v)
        v->integer = i;
    return v;
}

static struct um_pvalue *new_other(struct machine *m, const char *name)
{
    struct um_pvalue *v = new_value(m, UM_P_OTHER);
    if (v)
        v->name = name;
    return v;
}

static um_status append(struct machine *m, struct um_pvalue *list, struct um_pvalue *const *item,
                        size_t n)
{
    size_t count = list->list.count;
    if (n > list->list.capacity - count) {
        size_t capacity = list->list.capacity * 2 > count + n ? list->list.capacity * 2 : count + n;
        const struct um_pvalue **grown = um_arena_take(m->arena, capacity * sizeof *grown);
        if (!grown)
            return no_memory(m);
        if (count)
            memcpy(grown, list->list.item, count * sizeof *grown);
        list->list.item = grown;
        list->list.capacity = capacity;
    }
    for (size_t i = 0; i < n; i++)
        list->list.item[count + i] = item[i];
    list->list.count += n;
    return UM_OK;
}

static um_status push_sequence(struct machine *m, enum um_pkind kind, struct um_pvalue *const *item,
                               size_t n)
{
    struct um_pvalue *v = new_value(m, kind);
    if (!v)
        return no_memory(m);
    um_status st = n ? append(m, v, item, n) : UM_OK;
    return st == UM_OK ? push(m, v) : st;
}

static um_status push_marked(struct machine *m, enum um_pkind kind)
{
    struct um_pvalue **item = NULL;
    size_t n = 0;
    um_status st = pop_mark(m, &item, &n);
    if (st == UM_OK && kind == UM_P_DICT && n % 2)
        st = fail_at(m, "a dict with a key but no value");
    return st == UM_OK ? push_sequence(m, kind, item, n) : st;
}

static um_status push_popped(struct machine *m, size_t n)
{
    struct um_pvalue *item[3] = {NULL};
    um_status st = UM_OK;
    for (size_t i = n; st == UM_OK && i-- > 0;)
        st = pop(m, &item[i]);
    return st == UM_OK ? push_sequence(m, UM_P_TUPLE, item, n) : st;
}

/* Items for the container below them: of a dict in pairs. Objects we do not know swallow theirs. */
static um_status extend(struct machine *m, struct um_pvalue *const *item, size_t n, bool pairs)
{
    struct um_pvalue *to = NULL;
    um_status st = top(m, &to);
    if (st != UM_OK || to->kind == UM_P_OTHER)
        return st;
    if (to->kind != (pairs ? UM_P_DICT : UM_P_LIST))
        return fail_at(m, pairs ? "key and value for something that is no dict"
                                : "items for something that is no list");
    if (pairs && n % 2)
        return fail_at(m, "a key without value");
    return append(m, to, item, n);
}

static um_status extend_marked(struct machine *m, bool pairs)
{
    struct um_pvalue **item = NULL;
    size_t n = 0;
    um_status st = pop_mark(m, &item, &n);
    return st == UM_OK ? extend(m, item, n, pairs) : st;
}

static um_status extend_popped(struct machine *m, size_t n)
{
    struct um_pvalue *item[2] = {NULL};
    um_status st = UM_OK;
    for (size_t i = n; st == UM_OK && i-- > 0;)
        st = pop(m, &item[i]);
    return st == UM_OK ? extend(m, item, n, n == 2) : st;
}

/* Text stays in place, raw bytes too: both are only ever compared. */
static um_status push_text(struct machine *m, int length_bytes, bool text)
{
    uint64_t n = 0;
    const unsigned char *p = NULL;
    um_status st = take_number(m, length_bytes, &n);
    if (st == UM_OK)
        st = take(m, n, &p);
    if (st != UM_OK)
        return st;
    struct um_pvalue *v = text ? new_value(m, UM_P_STRING) : new_other(m, "bytes");
    if (v && text) {
        v->string.text = (const char *)p;
        v->string.length = (size_t)n;
    }
    return push(m, v);
}

static um_status push_long(struct machine *m, int length_bytes)
{
    uint64_t n = 0;
    const unsigned char *p = NULL;
    um_status st = take_number(m, length_bytes, &n);
    if (st == UM_OK)
        st = take(m, n, &p);
    if (st != UM_OK)
        return st;
    if (n > 8)
        return push(m, new_other(m, "long"));
    uint64_t v = n && p[n - 1] & 0x80 ? UINT64_MAX : 0;
    for (uint64_t i = 0; i < n; i++)
        v = (v & ~((uint64_t)0xff << 8 * i)) | (uint64_t)p[i] << 8 * i;
    return push(m, new_integer(m, UM_P_INT, (int64_t)v));
}

static um_status push_double(struct machine *m)
{
    const unsigned char *p = NULL; /* the one big-endian number */
    um_status st = take(m, 8, &p);
    if (st != UM_OK)
        return st;
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++)
        bits = bits << 8 | p[i];
    struct um_pvalue *v = new_value(m, UM_P_FLOAT);
    if (v)
        memcpy(&v->real, &bits, 8);
    return push(m, v);
}

/* ---- memo ---- */

static um_status memo_put(struct machine *m, uint64_t index)
{
    struct um_pvalue *v = NULL;
    um_status st = top(m, &v);
    if (st != UM_OK)
        return st;
    if (index >= m->size) /* each entry costs a byte of pickle at least */
        return um_fail(UM_EFORMAT, "pickle offset %zu: memo %" PRIu64 " in a pickle of %zu bytes",
                       m->op_at, index, m->size);
    if (index >= m->memo_capacity) {
        size_t capacity = m->memo_capacity ? m->memo_capacity : MEMO_START;
        while (capacity <= index)
            capacity *= 2;
        struct um_pvalue **grown = um_array(capacity, sizeof *grown);
        if (!grown)
            return no_memory(m);
        if (m->memo)
            memcpy(grown, m->memo, m->memo_capacity * sizeof *grown);
        um_free(m->memo);
        m->memo = grown;
        m->memo_capacity = capacity;
    }
    m->memo[index] = v;
    if (index >= m->memo_next)
        m->memo_next = (size_t)index + 1;
    return UM_OK;
}

static um_status memo_put_number(struct machine *m, int bytes)
{
    uint64_t index = 0;
    um_status st = take_number(m, bytes, &index);
    return st == UM_OK ? memo_put(m, index) : st;
}

static um_status memo_get(struct machine *m, int bytes)
{
    uint64_t index = 0;
    um_status st = take_number(m, bytes, &index);
    if (st != UM_OK)
        return st;
    if (index >= m->memo_capacity || !m->memo[index])
        return um_fail(UM_EFORMAT, "pickle offset %zu: memo %" PRIu64 " was never set", m->op_at,
                       index);
    return push(m, m->memo[index]);
}

/* ---- globals and calls ---- */

static bool is_word(const char *s, size_t n, const char *word)
{
    return n == strlen(word) && memcmp(s, word, n) == 0;
}

static um_status push_global(struct machine *m, const char *module, size_t module_n,
                             const char *name, size_t name_n)
{
    if (module_n + name_n + 1 > NAME_MAX_BYTES)
        return um_fail(UM_EFORMAT, "pickle offset %zu: a global's name of %zu bytes, at most %d",
                       m->op_at, module_n + name_n + 1, NAME_MAX_BYTES);
    char full[NAME_MAX_BYTES + 1];
    int n = snprintf(full, sizeof full, "%.*s.%.*s", (int)module_n, module, (int)name_n, name);
    for (int i = 0; i < n; i++)
        if (full[i] <= 0x20 || full[i] > 0x7e)
            return fail_at(m, "a global's name is not printable ASCII");
    const char *dot = memchr(module, '.', module_n);
    size_t root = dot ? (size_t)(dot - module) : module_n;
    bool hostile = false;
    for (size_t i = 0; i < sizeof HOSTILE / sizeof *HOSTILE; i++)
        hostile |= is_word(module, root, HOSTILE[i]);
    if (is_word(module, module_n, "builtins") || is_word(module, module_n, "__builtin__"))
        for (size_t i = 0; i < sizeof HOSTILE_BUILTINS / sizeof *HOSTILE_BUILTINS; i++)
            hostile |= is_word(name, name_n, HOSTILE_BUILTINS[i]);
    if (hostile)
        return um_fail(UM_EFORMAT,
                       "pickle offset %zu: names %s, which has no place in a weight file; "
                       "refused (nothing was executed)",
                       m->op_at, full);
    struct um_pvalue *v = new_value(m, UM_P_GLOBAL);
    if (v && !(v->name = um_arena_string(m->arena, full, (size_t)n)))
        return no_memory(m);
    return push(m, v);
}

static um_status global_from_lines(struct machine *m)
{
    const char *module = NULL, *name = NULL;
    size_t module_n = 0, name_n = 0;
    um_status st = take_line(m, &module, &module_n);
    if (st == UM_OK)
        st = take_line(m, &name, &name_n);
    return st == UM_OK ? push_global(m, module, module_n, name, name_n) : st;
}

static um_status global_from_stack(struct machine *m)
{
    struct um_pvalue *module = NULL, *name = NULL;
    um_status st = pop(m, &name);
    if (st == UM_OK)
        st = pop(m, &module);
    if (st != UM_OK)
        return st;
    if (module->kind != UM_P_STRING || name->kind != UM_P_STRING)
        return fail_at(m, "a global whose name is no string");
    return push_global(m, module->string.text, module->string.length, name->string.text,
                       name->string.length);
}

static um_status integers(const struct machine *m, const struct um_pvalue *v, const char *what,
                          int *n, int64_t out[UM_W_RANK])
{
    if (v->kind != UM_P_TUPLE && v->kind != UM_P_LIST)
        return um_fail(UM_EFORMAT, "pickle offset %zu: a tensor's %s is no tuple", m->op_at, what);
    if (v->list.count > UM_W_RANK)
        return um_fail(UM_EFORMAT, "pickle offset %zu: a tensor's %s has %zu entries, at most %d",
                       m->op_at, what, v->list.count, UM_W_RANK);
    *n = (int)v->list.count;
    for (int i = 0; i < *n; i++) {
        const struct um_pvalue *x = v->list.item[i];
        if (x->kind != UM_P_INT || x->integer < 0)
            return um_fail(UM_EFORMAT, "pickle offset %zu: a tensor's %s holds no size at place %d",
                           m->op_at, what, i);
        out[i] = x->integer;
    }
    return UM_OK;
}

/* _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata]),
 * torch/_utils.py */
static um_status rebuild_tensor(struct machine *m, const struct um_pvalue *args,
                                struct um_pvalue **out)
{
    if (args->list.count < 4)
        return um_fail(UM_EFORMAT, "pickle offset %zu: a tensor from %zu arguments, at least 4",
                       m->op_at, args->list.count);
    const struct um_pvalue *storage = args->list.item[0], *offset = args->list.item[1];
    if (storage->kind != UM_P_STORAGE)
        return fail_at(m, "a tensor without storage");
    if (offset->kind != UM_P_INT || offset->integer < 0)
        return fail_at(m, "a tensor whose storage offset is no size");
    struct um_pvalue *v = new_value(m, UM_P_TENSOR);
    struct um_ptensor *t = um_arena_take(m->arena, sizeof *t);
    if (!v || !t)
        return no_memory(m);
    v->tensor = t;
    *t = (struct um_ptensor){.storage = storage, .offset = offset->integer};
    int strides = 0;
    um_status st = integers(m, args->list.item[2], "size", &t->rank, t->dim);
    if (st == UM_OK)
        st = integers(m, args->list.item[3], "stride", &strides, t->stride);
    if (st == UM_OK && strides != t->rank)
        st = um_fail(UM_EFORMAT, "pickle offset %zu: a tensor of %d sizes and %d strides", m->op_at,
                     t->rank, strides);
    *out = v;
    return st;
}

/* What PyTorch would do to the numbers, as _neg_view() asks it to: turn their signs. */
static bool has_metadata(const struct um_pvalue *args)
{
    const struct um_pvalue *x = args->list.count > 6 ? args->list.item[6] : NULL;
    return x && x->kind != UM_P_NONE && (x->kind != UM_P_DICT || x->list.count > 0);
}

static um_status call(struct machine *m, struct um_pvalue *f, const struct um_pvalue *args)
{
    if (f->kind != UM_P_GLOBAL && f->kind != UM_P_OTHER)
        return fail_at(m, "a call of something that has no name");
    if (f->kind == UM_P_OTHER || args->kind != UM_P_TUPLE)
        return push(m, new_other(m, f->name));
    um_status st = UM_OK;
    struct um_pvalue *v = NULL;
    if (strcmp(f->name, "torch._utils._rebuild_tensor_v2") == 0) {
        if (has_metadata(args))
            v = new_other(m, "torch._utils.set_tensor_metadata");
        else
            st = rebuild_tensor(m, args, &v);
    } else if (strcmp(f->name, "torch._utils._rebuild_parameter") == 0 ||
               strcmp(f->name, "torch._utils._rebuild_parameter_with_state") == 0) {
        if (args->list.count < 1 || args->list.item[0]->kind != UM_P_TENSOR)
            return fail_at(m, "a parameter without tensor");
        v = (struct um_pvalue *)args->list.item[0];
    } else if (strcmp(f->name, "collections.OrderedDict") == 0) {
        /* Items follow by SETITEMS; only Python 2, which never wrote archives, put them here. */
        if (args->list.count != 0)
            return fail_at(m, "an OrderedDict with arguments");
        v = new_value(m, UM_P_DICT);
    } else if (strcmp(f->name, "collections.defaultdict") == 0) {
        v = new_value(m, UM_P_DICT);
    } else if (strcmp(f->name, "torch.Size") == 0 && args->list.count == 1 &&
               (args->list.item[0]->kind == UM_P_TUPLE || args->list.item[0]->kind == UM_P_LIST)) {
        v = (struct um_pvalue *)args->list.item[0];
    } else {
        v = new_other(m, f->name);
    }
    return st == UM_OK ? push(m, v) : st;
}

static um_status reduce(struct machine *m)
{
    struct um_pvalue *f = NULL, *args = NULL;
    um_status st = pop(m, &args);
    if (st == UM_OK)
        st = pop(m, &f);
    return st == UM_OK ? call(m, f, args) : st;
}

/* NEWOBJ: class, args. NEWOBJ_EX: class, args, keywords. */
static um_status new_object(struct machine *m, bool keywords)
{
    struct um_pvalue *f = NULL, *args = NULL, *kw = NULL;
    um_status st = keywords ? pop(m, &kw) : UM_OK;
    if (st == UM_OK)
        st = pop(m, &args);
    if (st == UM_OK)
        st = pop(m, &f);
    return st == UM_OK ? call(m, f, args) : st;
}

/* INST: class named in the pickle; OBJ: class on the stack above the mark. Old-style classes only,
 * never tensors. */
static um_status old_object(struct machine *m, bool named)
{
    struct um_pvalue **item = NULL, *f = NULL;
    size_t n = 0;
    um_status st = UM_OK;
    if (named) {
        st = global_from_lines(m);
        if (st == UM_OK)
            st = pop(m, &f);
    }
    if (st == UM_OK)
        st = pop_mark(m, &item, &n);
    if (st == UM_OK && !named) {
        if (n == 0 || item[0]->kind != UM_P_GLOBAL)
            return fail_at(m, "an object without class");
        f = item[0];
    }
    return st == UM_OK ? push(m, new_other(m, f->name)) : st;
}

/* ('storage', type, key, device, elements): torch/serialization.py, persistent_id. */
static um_status persistent(struct machine *m)
{
    struct um_pvalue *id = NULL;
    um_status st = pop(m, &id);
    if (st != UM_OK)
        return st;
    const struct um_pvalue **x = id->list.item;
    if (id->kind != UM_P_TUPLE || id->list.count < 5 || x[0]->kind != UM_P_STRING ||
        !is_word(x[0]->string.text, x[0]->string.length, "storage") || x[1]->kind != UM_P_GLOBAL ||
        x[2]->kind != UM_P_STRING || x[4]->kind != UM_P_INT || x[4]->integer < 0)
        return fail_at(m, "a persistent id that is no storage (type, key, device, elements)");
    if (x[2]->string.length > KEY_MAX_BYTES)
        return um_fail(UM_EFORMAT, "pickle offset %zu: a storage key of %zu bytes, at most %d",
                       m->op_at, x[2]->string.length, KEY_MAX_BYTES);
    struct um_pvalue *v = new_value(m, UM_P_STORAGE);
    if (!v)
        return no_memory(m);
    v->storage.type = x[1]->name;
    v->storage.key = um_arena_string(m->arena, x[2]->string.text, x[2]->string.length);
    v->storage.elements = x[4]->integer;
    return v->storage.key ? push(m, v) : no_memory(m);
}

static um_status step(struct machine *m, unsigned char op)
{
    struct um_pvalue *v = NULL, **items = NULL;
    uint64_t n = 0;
    size_t count = 0;
    um_status st = UM_OK;
    switch (op) {
    case 0x80: /* PROTO */
        st = take_number(m, 1, &n);
        if (st == UM_OK && n > PROTOCOL_MAX)
            st = um_fail(UM_EFORMAT, "pickle protocol %d, at most %d", (int)n, PROTOCOL_MAX);
        return st;
    case 0x95: return take_number(m, 8, &n); /* FRAME: only a hint */
    case '(': return push(m, &mark);         /* MARK */
    case '0':                                /* POP */
        if (m->depth == 0)
            return fail_at(m, "the stack is empty");
        m->depth--;
        return UM_OK;
    case '1': return pop_mark(m, &items, &count); /* POP_MARK */
    case '2': /* DUP */ st = top(m, &v); return st == UM_OK ? push(m, v) : st;

    case 'N': return push(m, new_value(m, UM_P_NONE));
    case 0x88: return push(m, new_integer(m, UM_P_BOOL, 1));
    case 0x89: return push(m, new_integer(m, UM_P_BOOL, 0));
    case 'J': /* BININT */
        st = take_number(m, 4, &n);
        return st == UM_OK ? push(m, new_integer(m, UM_P_INT, (int32_t)n)) : st;
    case 'K': /* BININT1 */
        st = take_number(m, 1, &n);
        return st == UM_OK ? push(m, new_integer(m, UM_P_INT, (int64_t)n)) : st;
    case 'M': /* BININT2 */
        st = take_number(m, 2, &n);
        return st == UM_OK ? push(m, new_integer(m, UM_P_INT, (int64_t)n)) : st;
    case 0x8a: return push_long(m, 1);
    case 0x8b: return push_long(m, 4);
    case 'G': return push_double(m);

    case 'X': return push_text(m, 4, true);   /* BINUNICODE */
    case 0x8c: return push_text(m, 1, true);  /* SHORT_BINUNICODE */
    case 0x8d: return push_text(m, 8, true);  /* BINUNICODE8 */
    case 'T': return push_text(m, 4, true);   /* BINSTRING */
    case 'U': return push_text(m, 1, true);   /* SHORT_BINSTRING */
    case 'B': return push_text(m, 4, false);  /* BINBYTES */
    case 'C': return push_text(m, 1, false);  /* SHORT_BINBYTES */
    case 0x8e: return push_text(m, 8, false); /* BINBYTES8 */
    case 0x96: return push_text(m, 8, false); /* BYTEARRAY8 */

    case ')': return push(m, new_value(m, UM_P_TUPLE));
    case ']': return push(m, new_value(m, UM_P_LIST));
    case '}': return push(m, new_value(m, UM_P_DICT));
    case 0x8f: return push(m, new_other(m, "set")); /* EMPTY_SET */
    case 't': return push_marked(m, UM_P_TUPLE);
    case 'l': return push_marked(m, UM_P_LIST);
    case 'd': return push_marked(m, UM_P_DICT);
    case 0x85: return push_popped(m, 1); /* TUPLE1 */
    case 0x86: return push_popped(m, 2);
    case 0x87: return push_popped(m, 3);
    case 0x91: /* FROZENSET */
        st = pop_mark(m, &items, &count);
        return st == UM_OK ? push(m, new_other(m, "frozenset")) : st;
    case 'a': return extend_popped(m, 1);      /* APPEND */
    case 's': return extend_popped(m, 2);      /* SETITEM */
    case 'e': return extend_marked(m, false);  /* APPENDS */
    case 0x90: return extend_marked(m, false); /* ADDITEMS */
    case 'u': return extend_marked(m, true);   /* SETITEMS */

    case 'q': return memo_put_number(m, 1);
    case 'r': return memo_put_number(m, 4);
    case 0x94: return memo_put(m, m->memo_next); /* MEMOIZE */
    case 'h': return memo_get(m, 1);
    case 'j': return memo_get(m, 4);

    case 'c': return global_from_lines(m);
    case 0x93: return global_from_stack(m);
    case 'R': return reduce(m);
    case 0x81: return new_object(m, false);
    case 0x92: return new_object(m, true);
    case 'i': return old_object(m, true);
    case 'o': return old_object(m, false);
    case 'Q': return persistent(m);
    case 'b': /* BUILD: attributes of an object; none that we read */
        st = pop(m, &v);
        return st == UM_OK ? top(m, &v) : st;
    default: break;
    }
    return um_fail(UM_EFORMAT,
                   "pickle offset %zu: opcode 0x%02x is not one that torch.save() writes", m->op_at,
                   op);
}

um_status um_pickle_read(struct um_arena *arena, const unsigned char *data, size_t size,
                         const struct um_pvalue **out)
{
    struct machine m = {.arena = arena, .data = data, .size = size};
    struct um_pvalue *result = NULL;
    um_status st = UM_OK;
    for (bool stop = false; st == UM_OK && !stop;) {
        const unsigned char *op = NULL;
        m.op_at = m.at;
        st = take(&m, 1, &op);
        if (st == UM_OK && *op == '.') { /* STOP */
            stop = true;
            st = pop(&m, &result);
        } else if (st == UM_OK) {
            st = step(&m, *op);
        }
    }
    um_free(m.stack);
    um_free(m.memo);
    *out = st == UM_OK ? result : NULL;
    return st;
}

const struct um_pvalue *um_pickle_get(const struct um_pvalue *dict, const char *key)
{
    if (!dict || dict->kind != UM_P_DICT)
        return NULL;
    for (size_t i = dict->list.count; i >= 2; i -= 2) { /* the last one wins, as in Python */
        const struct um_pvalue *k = dict->list.item[i - 2];
        if (k->kind == UM_P_STRING && is_word(k->string.text, k->string.length, key))
            return dict->list.item[i - 1];
    }
    return NULL;
}
