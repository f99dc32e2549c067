/* SPDX-License-Identifier: Apache-2.0 */
/* What people hand over instead of weights, told by its first bytes: each gets one sentence that
 * says what it is, what was expected and what to do. */
#include "weights/view.h"

#include "base/kind.h"

#include <stdio.h>
#include <string.h>

static const char WANT[] = "want weights of D-FINE or SAM as .safetensors, .pt or .pth";

static const char CONVERTED[] = "give the PyTorch checkpoint that it was made of",
                  ITSELF[] = "download the weights themselves";

um_status um_stranger_fail(const char *what, const char *mend)
{
    return um_fail(UM_EFORMAT, "%s, %s; %s", what, WANT, mend);
}

static bool starts(const char *s, size_t n, const char *with)
{
    size_t m = strlen(with), i = 0;
    while (i < m && i < n && (s[i] | 0x20) == (with[i] | 0x20))
        i++;
    return i == m;
}

/* Occurs in the first bytes. */
static bool has(const char *s, size_t n, const char *what)
{
    size_t m = strlen(what);
    for (size_t i = 0; i + m <= n; i++)
        if (memcmp(s + i, what, m) == 0)
            return true;
    return false;
}

static const char PAGE[] = "a web page, not the file behind it",
                  OPEN[] = "open the link in a browser and download the file itself";

static um_status text(const char *s, size_t n)
{
    size_t skip = 0;
    if (n >= 3 && memcmp(s, "\xef\xbb\xbf", 3) == 0)
        skip = 3;
    while (skip < n && strchr(" \t\r\n", s[skip]))
        skip++;
    const char *p = s + skip;
    size_t m = n - skip;
    if (starts(p, m, "<?xml") || starts(p, m, "<net"))
        return has(p, m, "<html")  ? um_stranger_fail(PAGE, OPEN)
               : has(p, m, "<net") ? um_stranger_fail("an OpenVINO network", CONVERTED)
                                   : um_stranger_fail("an XML document", ITSELF);
    if (m && (*p == '{' || *p == '['))
        return um_stranger_fail("a JSON text",
                                has(p, m, "\"weight_map\"")
                                    ? "it lists the parts of a model: save that as one file"
                                    : "give the weight file beside it, or the folder of both");
    if (starts(p, m, "#!/") || has(p, m, "\nimport ") || starts(p, m, "import ") ||
        starts(p, m, "from "))
        return um_stranger_fail("a program's text", "give the weights that it writes");
    if (starts(p, m, "<!doctype html") || starts(p, m, "<html") || has(p, m, "<html"))
        return um_stranger_fail(PAGE, OPEN);
    if (has(p, m, "__include__") || has(p, m, "\nmodel:") || has(p, m, "\nname:") ||
        has(p, m, "nc:"))
        return um_stranger_fail("a configuration text", "give the weights that it was trained to");
    return um_stranger_fail("a text", ITSELF);
}

/* A protobuf whose field 1 is a version, and field 2 a message. */
static bool is_coreml(const unsigned char *b, size_t n)
{
    return n > 4 && b[0] == 0x08 && b[1] < 0x20 && b[2] == 0x12 && b[4] == 0x0a;
}

/* PyTorch before 1.6 pickled a magic number before its objects. */
static bool is_legacy_torch(const unsigned char *b, size_t n)
{
    static const unsigned char MAGIC[] = {0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                          0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
    return n > 14 && b[0] == 0x80 && b[1] <= 5 && memcmp(b + 2, MAGIC, sizeof MAGIC) == 0;
}

static const char *mend(enum um_kind_sort sort)
{
    switch (sort) {
    case UM_KIND_IMAGE:
    case UM_KIND_OTHER_IMAGE:
    case UM_KIND_VIDEO:
    case UM_KIND_DICOM: return "give the weights; images are what they are run on";
    case UM_KIND_POINTER:
        return "run \"git lfs pull\" where it came from, or download the file itself";
    case UM_KIND_ARCHIVE: return "unpack it and give the weight file in it";
    case UM_KIND_ENCRYPTED: return "decrypt it first";
    case UM_KIND_WEIGHTS: return CONVERTED;
    case UM_KIND_VOLUME: return "save the network's state dict with torch.save()";
    case UM_KIND_EMPTY: return "download it again";
    default: return ITSELF;
    }
}

um_status um_stranger(const unsigned char *b, size_t n)
{
    enum { SEEN = 4096 };
    size_t seen = n < SEEN ? n : SEEN;
    if (is_legacy_torch(b, n))
        return um_fail(UM_EFORMAT,
                       "a pickle without archive (PyTorch before 1.6), %s; load it with "
                       "PyTorch and save its state dict again with torch.save()",
                       WANT);
    if (n > 1 && b[0] == 0x80 && b[1] <= 5)
        return has((const char *)b, seen, "paddle") ||
                       has((const char *)b, seen, "StructuredToParameterName@@")
                   ? um_stranger_fail("a pickle of PaddlePaddle",
                                      "give weights of the PyTorch version")
                   : um_stranger_fail(
                         "a pickle, not written by torch.save()",
                         "load it in Python and save the network's state dict with torch.save()");
    if (is_coreml(b, n))
        return um_stranger_fail("a Core ML network", CONVERTED);
    struct um_kind kind = um_kind_of(b, seen);
    if (kind.sort == UM_KIND_TEXT || kind.sort == UM_KIND_PAGE)
        return text((const char *)b, seen);
    if (kind.sort != UM_KIND_UNKNOWN)
        return um_stranger_fail(kind.what, mend(kind.sort));
    char first[128];
    snprintf(first, sizeof first,
             "neither safetensors nor a PyTorch archive (%zu bytes, first %02x %02x)", n, b[0],
             n > 1 ? b[1] : 0);
    return um_stranger_fail(first, "download it again if it is cut or damaged, or decrypt it");
}
