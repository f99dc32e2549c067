/* SPDX-License-Identifier: Apache-2.0 */
/* What people hand over instead of weights, told by its first bytes: each gets one sentence that
 * says what it is, what was expected and what to do. */
#include "weights/view.h"

#include "base/text.h"

#include <stdio.h>
#include <string.h>

static const char WANT[] = "want weights of D-FINE or SAM as .safetensors, .pt or .pth";

struct kind {
    const char *magic;
    size_t at, bytes;
    const char *what, *mend;
};
#define AT(offset, magic, what, mend)               \
    {                                               \
        magic, offset, sizeof magic - 1, what, mend \
    }

static const char UNPACK[] = "unpack it and give the weight file in it";
static const char CONVERTED[] = "give the PyTorch checkpoint that it was made of";
static const char PICTURE[] = "pictures are the command's first argument, not a model";
static const char DECRYPT[] = "decrypt it first";

static const struct kind KINDS[] = {
    AT(0, "version https://git-lfs", "a Git LFS pointer, not the file it points to",
       "run \"git lfs pull\" where it came from, or download the file itself"),
    AT(0, "\x89PNG", "a PNG picture", PICTURE),
    AT(0, "\xff\xd8\xff", "a JPEG picture", PICTURE),
    AT(0, "GIF8", "a GIF picture", PICTURE),
    AT(0, "BM", "a BMP picture", PICTURE),
    AT(0, "II*\0", "a TIFF picture", PICTURE),
    AT(0, "MM\0*", "a TIFF picture", PICTURE),
    AT(8, "WEBP", "a WebP picture", PICTURE),
    AT(128, "DICM", "a DICOM file", PICTURE),
    AT(4, "ftyp", "a video", PICTURE),
    AT(0, "\x1f\x8b", "a gzip archive", UNPACK),
    AT(0, "BZh", "a bzip2 archive", UNPACK),
    AT(0,
       "\xfd"
       "7zXZ",
       "an xz archive", UNPACK),
    AT(0, "\x28\xb5\x2f\xfd", "a zstd archive", UNPACK),
    AT(0, "7z\xbc\xaf\x27\x1c", "a 7-Zip archive", UNPACK),
    AT(0, "Rar!", "a RAR archive", UNPACK),
    AT(257, "ustar", "a tar archive", UNPACK),
    AT(0, "%PDF", "a PDF document", "download the weights themselves"),
    AT(0, "GGUF", "a GGUF model (llama.cpp)", CONVERTED),
    AT(0, "ggml", "a GGML model", CONVERTED),
    AT(0, "lmgg", "a GGML model", CONVERTED),
    AT(0, "\x89HDF\r\n", "an HDF5 file (Keras, TensorFlow)", CONVERTED),
    AT(4, "TFL3", "a TensorFlow Lite model", CONVERTED),
    AT(4, "ORTM", "an ONNX Runtime model", CONVERTED),
    AT(0, "ftrt", "a TensorRT engine", CONVERTED),
    AT(0, "ptrt", "a TensorRT engine", CONVERTED),
    AT(0, "\x93NUMPY", "a NumPy array", "save the network's state dict with torch.save()"),
    AT(0,
       "\x7f"
       "ELF",
       "a program or library", "download the weights themselves"),
    AT(0, "MZ", "a Windows program or library", "download the weights themselves"),
    AT(0, "Salted__", "a file encrypted with OpenSSL", DECRYPT),
    AT(0, "age-encryption.org", "a file encrypted with age", DECRYPT),
    AT(0, "-----BEGIN PGP", "a file encrypted with PGP", DECRYPT),
    AT(0, "-----BEGIN AGE", "a file encrypted with age", DECRYPT),
    AT(0, "\x85\x01", "a file encrypted with PGP", DECRYPT),
    AT(0, "\x85\x02", "a file encrypted with PGP", DECRYPT),
    AT(0, "\x8c\x0d", "a file encrypted with PGP", DECRYPT),
    AT(0, "MATLAB 5.0", "a MATLAB file", CONVERTED),
    AT(0, "SQLite format 3", "an SQLite database", "download the weights themselves"),
    AT(0, "7767517", "an ncnn model", CONVERTED),
};

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

static bool is_text(const char *s, size_t n)
{
    for (size_t i = 0, bytes = 0; i < n; i += bytes) {
        uint32_t code = 0;
        bytes = um_text_utf8(s + i, n - i, &code);
        if (!bytes && n - i < 4 && i) /* cut in a character */
            return true;
        if (!bytes || (um_text_is_control(code) && !strchr("\t\n\r\f", (int)code)) || code == 0)
            return false;
    }
    return true;
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
        return has(p, m, "<html") ? um_stranger_fail(PAGE, OPEN)
               : has(p, m, "<net")
                   ? um_stranger_fail("an OpenVINO model", CONVERTED)
                   : um_stranger_fail("an XML document", "download the weights themselves");
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
    return um_stranger_fail("a text", "download the weights themselves");
}

/* A protobuf whose field 1 is a version: of ONNX, then field 2 is a name (or 7, 8), of Core ML a
 * message. */
static bool is_coreml(const unsigned char *b, size_t n)
{
    return n > 4 && b[0] == 0x08 && b[1] < 0x20 && b[2] == 0x12 && b[4] == 0x0a;
}

static bool is_onnx(const unsigned char *b, size_t n)
{
    return n > 4 && b[0] == 0x08 && b[1] < 0x20 &&
           (b[2] == 0x12 || b[2] == 0x3a || b[2] == 0x42 || b[2] == 0x1a);
}

/* PyTorch before 1.6 pickled a magic number before its objects. */
static bool is_legacy_torch(const unsigned char *b, size_t n)
{
    static const unsigned char MAGIC[] = {0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                          0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
    return n > 14 && b[0] == 0x80 && b[1] <= 5 && memcmp(b + 2, MAGIC, sizeof MAGIC) == 0;
}

um_status um_stranger(const unsigned char *b, size_t n)
{
    enum { SEEN = 4096 };
    if (n == 0)
        return um_stranger_fail("an empty file", "download it again");
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
        const struct kind *k = &KINDS[i];
        if (n >= k->at + k->bytes && memcmp(b + k->at, k->magic, k->bytes) == 0)
            return um_stranger_fail(k->what, k->mend);
    }
    if (is_legacy_torch(b, n))
        return um_fail(UM_EFORMAT,
                       "a pickle without archive (PyTorch before 1.6), %s; load it with "
                       "PyTorch and save its state dict again with torch.save()",
                       WANT);
    if (b[0] == 0x80 && n > 1 && b[1] <= 5)
        return has((const char *)b, n < SEEN ? n : SEEN, "paddle") ||
                       has((const char *)b, n < SEEN ? n : SEEN, "StructuredToParameterName@@")
                   ? um_stranger_fail("a pickle of PaddlePaddle",
                                      "give weights of the PyTorch version")
                   : um_stranger_fail(
                         "a pickle, not written by torch.save()",
                         "load it in Python and save the network's state dict with torch.save()");
    if (is_coreml(b, n))
        return um_stranger_fail("a Core ML model", CONVERTED);
    if (is_onnx(b, n))
        return um_stranger_fail("an ONNX model", CONVERTED);
    if (is_text((const char *)b, n < SEEN ? n : SEEN))
        return text((const char *)b, n < SEEN ? n : SEEN);
    char first[128];
    snprintf(first, sizeof first,
             "neither safetensors nor a PyTorch archive (%zu bytes, first %02x %02x)", n, b[0],
             n > 1 ? b[1] : 0);
    return um_stranger_fail(first, "download it again if it is cut or damaged, or decrypt it");
}
