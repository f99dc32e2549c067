/* SPDX-License-Identifier: Apache-2.0 */
#define _XOPEN_SOURCE 700 /* realpath() */
#include "kpi.h"

#include "clock.h"
#include "json.h"
#include "text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Lines that wait for the thread that writes them. It is soon there, unless FILE's reader is not.
 */
enum { MOST = 1024 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static char *lines[MOST]; /* guarded by lock, as all below */
static int count;
static uint64_t added, left_out; /* left_out: for want of room */

void kpi_line(void *ctx, const char *line)
{
    (void)ctx;
    char *copy = strdup(line);
    pthread_mutex_lock(&lock);
    if (copy && count < MOST) {
        lines[count++] = copy;
        added++;
        copy = NULL;
    } else {
        left_out++;
    }
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
    free(copy);
}

void kpi_models(const char *device, const char *precision, double load_ms, uint64_t device_bytes,
                const char *detector, const char *segmenter)
{
    char *line = NULL;
    FILE *f = text_open(&line);
    if (!f)
        return;
    fprintf(f, "{\"ts\":%.6f,\"event\":\"init_models\",\"device\":", unix_now());
    json_string(f, device);
    fprintf(f, ",\"precision\":");
    json_string(f, precision);
    fprintf(f, ",\"total_ms\":%.1f,\"gpu_mem_MB\":%.1f,\"dfine_path\":", load_ms,
            (double)device_bytes / 1e6);
    json_string(f, detector);
    fprintf(f, ",\"mobilesam_path\":");
    json_string(f, segmenter);
    fprintf(f, "}");
    if (text_close(f, &line))
        kpi_line(NULL, line);
    free(line);
}

/* ---- the file ---- */

static struct kpi_settings chosen; /* there is one for the program */

struct kpi {
    um_lines *out;
    uint64_t bytes;       /* in the file */
    bool regular, failed; /* failed: that was said */
    int wake;             /* the sink was given up */
    int stop[2], done[2]; /* pipes: the thread must end; it has written something */
    pthread_t thread;
    bool started, piped, ending; /* ending: guarded by lock, as all below */
    uint64_t taken, told;        /* of `added`: written; of `left_out`: said */
    um_status status;
    char problem[512];
};

/* The numbers behind "PATH.": the greatest and the least, 0 = there are none; how many there are.
 */
static int numbers(const char *path, unsigned long *least, unsigned long *greatest)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t n = strlen(name);
    char *folder = text_folder(path);
    DIR *d = folder ? opendir(folder) : NULL;
    int found = 0;
    *least = *greatest = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        const char *digits = e->d_name + n + 1;
        if (strncmp(e->d_name, name, n) != 0 || e->d_name[n] != '.' || !*digits ||
            strspn(digits, "0123456789") != strlen(digits) || strlen(digits) > 9)
            continue;
        unsigned long number = strtoul(digits, NULL, 10);
        *greatest = number > *greatest ? number : *greatest;
        *least = !found || number < *least ? number : *least;
        found++;
    }
    if (d)
        closedir(d);
    free(folder);
    return found;
}

/* One of its own, which may be renamed: /dev/stdout is none, whatever it leads to. */
static bool is_file(const char *path, struct stat *s)
{
    return stat(path, s) == 0 && S_ISREG(s->st_mode) && !um_same_file(path, "/dev/stdout") &&
           !um_same_file(path, "/dev/stderr");
}

/* What lies at the path gets the next number; a file that another run writes stays its own. Where
 * the path is a link that is what it leads to, and the link stays. */
static um_status put_aside(const char *path)
{
    struct stat s;
    if (!is_file(path, &s) || s.st_size == 0)
        return UM_OK;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return UM_OK; /* opening it says why */
    unsigned long least, greatest;
    char *file = realpath(path, NULL);
    size_t size = file ? strlen(file) + 24 : 0;
    char *to = file ? malloc(size) : NULL;
    bool ours = flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
    um_status st = to ? UM_OK : um_set_error(UM_ENOMEM, "--kpi");
    if (st == UM_OK && ours) {
        numbers(file, &least, &greatest);
        snprintf(to, size, "%s.%lu", file, greatest + 1);
        if (rename(file, to) != 0) {
            char why[512];
            snprintf(why, sizeof why, "%.200s: cannot become %.200s: %s", path, to,
                     strerror(errno));
            st = um_set_error(UM_EIO, why);
        }
    }
    close(fd);
    free(to);
    free(file);
    return st;
}

/* Older ones go, if only some are to be kept. */
static void thin_out(const char *path)
{
    unsigned long least, greatest;
    char *file = realpath(path, NULL);
    size_t size = file ? strlen(file) + 24 : 0;
    char *name = file ? malloc(size) : NULL;
    while (name && numbers(file, &least, &greatest) > chosen.keep) {
        snprintf(name, size, "%s.%lu", file, least);
        if (unlink(name) != 0)
            break;
    }
    free(name);
    free(file);
}

static um_status begin_file(struct kpi *k)
{
    k->bytes = 0;
    struct stat s;
    um_status st = um_lines_open(&k->out, chosen.path);
    k->regular = st == UM_OK && strcmp(chosen.path, "-") != 0 && is_file(chosen.path, &s);
    if (k->regular && chosen.keep) /* also at the start: runs may be too short to fill a file */
        thin_out(chosen.path);
    return st;
}

static um_status write_line(struct kpi *k, const char *line)
{
    um_status st = UM_OK;
    size_t n = strlen(line) + 1;
    if (k->regular && chosen.max_bytes && k->bytes && k->bytes + n > chosen.max_bytes) {
        st = um_lines_close(&k->out);
        if (st == UM_OK)
            st = put_aside(chosen.path);
        if (st == UM_OK)
            st = begin_file(k);
    }
    k->bytes += n;
    return st == UM_OK ? um_lines_write(k->out, line, k->stop[0]) : st;
}

/* ---- its thread ---- */

/* What is to be written next: how many lines are missing, or a line. False: it is to end. */
static bool next_line(struct kpi *k, char **line)
{
    *line = NULL;
    pthread_mutex_lock(&lock);
    while (!count && left_out == k->told && !k->ending)
        pthread_cond_wait(&changed, &lock);
    uint64_t missing = left_out - k->told, all = left_out;
    bool any = count > 0;
    if (any && !missing) {
        *line = lines[0];
        memmove(lines, lines + 1, (size_t)--count * sizeof *lines);
    }
    k->told = left_out;
    pthread_mutex_unlock(&lock);
    if (missing && (*line = malloc(160)))
        snprintf(*line, 160,
                 "{\"ts\":%.6f,\"event\":\"drop_event\",\"cause\":\"kpi\",\"removed\":%llu,"
                 "\"total\":%llu,\"qsize\":%d}",
                 unix_now(), (unsigned long long)missing, (unsigned long long)all, MOST);
    return any || missing;
}

static void *write_lines(void *ctx)
{
    struct kpi *k = ctx;
    um_status st = UM_OK;
    char *line;
    while (st == UM_OK && next_line(k, &line)) {
        if (line)
            st = write_line(k, line);
        free(line);
        pthread_mutex_lock(&lock);
        k->taken = added - (uint64_t)count;
        k->status = st;
        if (st != UM_OK)
            snprintf(k->problem, sizeof k->problem, "%s", um_last_error());
        pthread_mutex_unlock(&lock);
        ssize_t n = write(k->done[1], "", 1); /* where it is full, it says so already */
        (void)n;
    }
    return NULL;
}

/* Until everything up to now is written. */
static um_status await_lines(struct kpi *k, int ms)
{
    char bytes[64], why[512] = "";
    pthread_mutex_lock(&lock);
    uint64_t mine = added;
    pthread_mutex_unlock(&lock);
    for (;;) {
        struct pollfd p[2] = {{.fd = k->done[0], .events = POLLIN},
                              {.fd = k->wake, .events = POLLIN}};
        pthread_mutex_lock(&lock);
        um_status st = k->status;
        bool all = k->taken >= mine;
        if (st != UM_OK)
            snprintf(why, sizeof why, "%s", k->problem);
        pthread_mutex_unlock(&lock);
        if (all || st != UM_OK)
            return st == UM_OK ? UM_OK : um_set_error(st, why);
        if (poll(p, 2, ms) == 0 || p[1].revents) {
            snprintf(why, sizeof why, "%.400s: its reader takes nothing", chosen.path);
            return um_set_error(UM_AGAIN, why);
        }
        ssize_t n = read(k->done[0], bytes, sizeof bytes);
        (void)n;
    }
}

static um_status open_file(void *priv, const char *arg, const um_sink_settings *settings,
                           int wake_fd)
{
    (void)arg, (void)settings;
    struct kpi *k = priv;
    k->wake = wake_fd;
    k->piped = pipe(k->stop) == 0;
    if (k->piped && pipe(k->done) != 0) {
        close(k->stop[0]);
        close(k->stop[1]);
        k->piped = false;
    }
    for (int i = 0; k->piped && i < 2; i++)
        fcntl(k->done[i], F_SETFL, O_NONBLOCK);
    um_status st = k->piped ? put_aside(chosen.path) : um_set_error(UM_EIO, "--kpi: no pipe");
    if (st == UM_OK)
        st = begin_file(k);
    k->started = st == UM_OK && pthread_create(&k->thread, NULL, write_lines, k) == 0;
    return st == UM_OK && !k->started ? um_set_error(UM_ENOMEM, "--kpi: no thread") : st;
}

/* ---- packets ---- */

/* A packet's own events; names and fields are those of the Python project. */
static void add_packet(const um_packet *p)
{
    char line[512];
    double ts = unix_now();
    unsigned long long frame = (unsigned long long)p->frame_id;
    snprintf(line, sizeof line,
             "{\"ts\":%.6f,\"event\":\"copy_async\",\"device\":\"%s\",\"H\":%d,\"W\":%d,"
             "\"copy_ms\":%.3f,\"up\":%u,\"down\":%u,\"bytes\":%llu,\"frame\":%llu}",
             ts, p->device, p->height, p->width, p->ms.upload, p->transfers.up, p->transfers.down,
             (unsigned long long)(p->transfers.up_bytes + p->transfers.down_bytes), frame);
    kpi_line(NULL, line);
    if (p->detected) {
        snprintf(line, sizeof line,
                 "{\"ts\":%.6f,\"event\":\"infer_dfine\",\"infer_ms\":%.3f,\"conf_max\":%.4f,"
                 "\"H\":%d,\"W\":%d,\"frame\":%llu}",
                 ts, p->ms.detect, (double)p->score, p->height, p->width, frame);
        kpi_line(NULL, line);
    }
    snprintf(line, sizeof line,
             "{\"ts\":%.6f,\"event\":\"infer_frame\",\"frame\":%llu,\"latency_ms\":%.3f,"
             "\"conf\":%.4f,\"state\":\"%s\"%s%s%s}",
             ts, frame, p->ms.total, (double)p->score, um_state_name(p->state),
             !p->has_deadline ? ""
             : p->missed      ? ",\"missed\":1,\"effort\":\""
                              : ",\"missed\":0,\"effort\":\"",
             p->has_deadline ? um_effort_name(p->effort) : "", p->has_deadline ? "\"" : "");
    kpi_line(NULL, line);
}

/* A line comes before its packet, and the packet stays until they are written: so a reader who
 * takes nothing is noticed. */
static um_status write_packet(void *priv, const um_packet *packet, const um_frame *frame,
                              const char *name)
{
    (void)frame;
    (void)name;
    struct kpi *k = priv;
    if (chosen.all)
        add_packet(packet);
    um_status st = await_lines(k, -1);
    k->failed = st != UM_OK;
    return st;
}

static um_status close_file(void *priv)
{
    enum { PATIENCE_MS = 500 };
    struct kpi *k = priv;
    char why[512] = "";
    um_status st = UM_OK;
    if (k->started) {
        st = await_lines(k, PATIENCE_MS);
        snprintf(why, sizeof why, "%s", um_last_error());
        pthread_mutex_lock(&lock);
        k->ending = true;
        pthread_cond_signal(&changed);
        pthread_mutex_unlock(&lock);
        close(k->stop[1]); /* its other end is readable now */
        k->stop[1] = -1;
        pthread_join(k->thread, NULL);
    }
    if (k->piped) {
        close(k->stop[0]);
        close(k->done[0]);
        close(k->done[1]);
        if (k->stop[1] >= 0)
            close(k->stop[1]);
    }
    pthread_mutex_lock(&lock);
    while (count > 0)
        free(lines[--count]);
    pthread_mutex_unlock(&lock);
    um_status closed = um_lines_close(&k->out);
    return st == UM_OK || st == UM_EOF || k->failed ? closed : um_set_error(st, why);
}

um_status kpi_open(um_sink **out, const struct kpi_settings *kpi, const um_sink_settings *settings)
{
    static const um_sink_ops ops = {.struct_size = sizeof ops,
                                    .scheme = "kpi",
                                    .usage = "kpi:PATH",
                                    .priv_size = sizeof(struct kpi),
                                    .open = open_file,
                                    .write = write_packet,
                                    .close = close_file};
    chosen = *kpi;
    um_status st = um_sink_register(&ops);
    char *spec = text_join("kpi:", "", kpi->path);
    if (st == UM_OK)
        st = spec ? um_sink_open(out, spec, settings) : um_set_error(UM_ENOMEM, "--kpi");
    free(spec);
    return st;
}
