/* SPDX-License-Identifier: Apache-2.0 */
#include "base/kind.h"

#include "base/text.h"

#include <stdbool.h>
#include <string.h>

struct mark {
    uint16_t at;
    uint8_t length;
    uint8_t sort;
    const char *bytes, *what, *name;
};

#define MARK(at, bytes, sort, what, name)                       \
    {                                                           \
        at, sizeof bytes - 1, UM_KIND_##sort, bytes, what, name \
    }

/* The first that fits. */
static const struct mark marks[] = {
    MARK(128, "DICM", DICOM, "a DICOM file", "DICOM"), /* in front of it may be anything */
    MARK(0, "\x89PNG\r\n\x1a\n", IMAGE, "a PNG image", "PNG"),
    MARK(0, "\xff\xd8\xff\xf7", OTHER_IMAGE, "a JPEG-LS image", "JPEG-LS"),
    MARK(0, "\xff\xd8\xff", IMAGE, "a JPEG image", "JPEG"),
    MARK(0, "II*\0", IMAGE, "a TIFF image", "TIFF"),
    MARK(0, "MM\0*", IMAGE, "a TIFF image", "TIFF"),
    MARK(0, "II+\0", IMAGE, "a TIFF image", "TIFF"),
    MARK(0, "MM\0+", IMAGE, "a TIFF image", "TIFF"),
    MARK(8, "WEBP", OTHER_IMAGE, "a WebP image", "WebP"),
    MARK(4, "ftypheic", OTHER_IMAGE, "a HEIC image", "HEIC"),
    MARK(4, "ftypheix", OTHER_IMAGE, "a HEIC image", "HEIC"),
    MARK(4, "ftypheim", OTHER_IMAGE, "a HEIC image", "HEIC"),
    MARK(4, "ftypheis", OTHER_IMAGE, "a HEIC image", "HEIC"),
    MARK(4, "ftyphevc", OTHER_IMAGE, "a HEIC image", "HEIC"),
    MARK(4, "ftyphevx", OTHER_IMAGE, "a HEIC image", "HEIC"),
    MARK(4, "ftypmif1", OTHER_IMAGE, "a HEIC image", "HEIC"),
    MARK(4, "ftypmsf1", OTHER_IMAGE, "a HEIC image", "HEIC"),
    MARK(4, "ftypavif", OTHER_IMAGE, "an AVIF image", "AVIF"),
    MARK(4, "ftypavis", OTHER_IMAGE, "an AVIF image", "AVIF"),
    MARK(0, "\0\0\0\x0cjP  \r\n\x87\n", OTHER_IMAGE, "a JPEG 2000 image", "JPEG 2000"),
    MARK(0, "\xff\x4f\xff\x51", OTHER_IMAGE, "a JPEG 2000 image", "JPEG 2000"),
    MARK(0, "\0\0\0\x0cJXL \r\n\x87\n", OTHER_IMAGE, "a JPEG XL image", "JPEG XL"),
    MARK(0, "8BPS", OTHER_IMAGE, "a Photoshop image", "PSD"),
    MARK(0, "v/1\x01", OTHER_IMAGE, "an OpenEXR image", "OpenEXR"),
    MARK(0, "P5", OTHER_IMAGE, "a PGM image", "PGM"),
    MARK(0, "P6", OTHER_IMAGE, "a PPM image", "PPM"),
    MARK(4, "ftyp", VIDEO, "an MP4 or QuickTime video", "MP4 video"),
    MARK(4, "moov", VIDEO, "a QuickTime video", "QuickTime video"),
    MARK(4, "mdat", VIDEO, "a QuickTime video", "QuickTime video"),
    MARK(4, "wide", VIDEO, "a QuickTime video", "QuickTime video"),
    MARK(0, "\x1a\x45\xdf\xa3", VIDEO, "a Matroska or WebM video", "Matroska video"),
    MARK(8, "AVI ", VIDEO, "an AVI video", "AVI video"),
    MARK(0, "\x30\x26\xb2\x75\x8e\x66\xcf\x11", VIDEO, "a Windows Media video", "WMV video"),
    MARK(0, "FLV\x01", VIDEO, "a Flash video", "FLV video"),
    MARK(0, "OggS", VIDEO, "an Ogg file", "Ogg video"),
    MARK(0, "\0\0\x01\xba", VIDEO, "an MPEG video", "MPEG video"),
    MARK(0, "\0\0\x01\xb3", VIDEO, "an MPEG video", "MPEG video"),
    MARK(0, "\0\0\0\x01\x67", VIDEO, "an H.264 stream", "H.264 video"),
    MARK(0, "\0\0\0\x01\x27", VIDEO, "an H.264 stream", "H.264 video"),
    MARK(0, "\0\0\0\x01\x09", VIDEO, "an H.264 stream", "H.264 video"),
    MARK(0, "\0\0\0\x01\x40\x01", VIDEO, "an H.265 stream", "H.265 video"),
    MARK(0, "\0\0\0\x01\x46\x01", VIDEO, "an H.265 stream", "H.265 video"),
    MARK(0, "\x06\x0e\x2b\x34\x02\x05\x01\x01", VIDEO, "an MXF video", "MXF video"),
    MARK(0, "nut/multimedia container", VIDEO, "a NUT video", "NUT video"),
    MARK(0, "YUV4MPEG2 ", VIDEO, "a YUV4MPEG video", "YUV4MPEG video"),
    MARK(0, "DKIF", VIDEO, "an IVF video", "IVF video"),
    MARK(0, "GIF8", VIDEO, "a GIF image", "GIF"),
    MARK(344, "n+1\0", VOLUME, "a NIfTI volume", "NIfTI"),
    MARK(0, "NRRD000", IMAGE, "an NRRD file", "NRRD"),
    MARK(0, "ObjectType", IMAGE, "a MetaImage file", "MetaImage"),
    MARK(0, "NDims", IMAGE, "a MetaImage file", "MetaImage"),
    MARK(0, "\x93NUMPY", VOLUME, "a NumPy array", "NumPy array"),
    MARK(0, "MATLAB 5.0 MAT-file", VOLUME, "a MATLAB file", "MATLAB file"),
    MARK(4, "TFL3", WEIGHTS, "a TensorFlow Lite network", "TensorFlow Lite network"),
    MARK(0, "GGUF", WEIGHTS, "a GGUF network", "GGUF network"),
    MARK(4, "ORTM", WEIGHTS, "an ONNX Runtime network", "ONNX Runtime network"),
    MARK(0, "ggml", WEIGHTS, "a GGML network", "GGML network"),
    MARK(0, "lmgg", WEIGHTS, "a GGML network", "GGML network"),
    MARK(0, "ftrt", WEIGHTS, "a TensorRT engine", "TensorRT engine"),
    MARK(0, "ptrt", WEIGHTS, "a TensorRT engine", "TensorRT engine"),
    MARK(0, "7767517", WEIGHTS, "an ncnn network", "ncnn network"),
    MARK(0, "\x89HDF\r\n\x1a\n", WEIGHTS, "an HDF5 file, as Keras writes them", "HDF5 file"),
    MARK(0, "\x80\x02", WEIGHTS, "a pickle, as PyTorch writes weights", "pickle"),
    MARK(0, "\x80\x03", WEIGHTS, "a pickle, as PyTorch writes weights", "pickle"),
    MARK(0, "\x80\x04", WEIGHTS, "a pickle, as PyTorch writes weights", "pickle"),
    MARK(0, "\x80\x05", WEIGHTS, "a pickle, as PyTorch writes weights", "pickle"),
    MARK(0, "version https://git-lfs", POINTER, "a Git LFS pointer", "Git LFS pointer"),
    MARK(0, "Salted__", ENCRYPTED, "an encrypted file (OpenSSL)", "encrypted file"),
    MARK(0, "-----BEGIN PGP MESSAGE", ENCRYPTED, "an encrypted file (PGP)", "encrypted file"),
    MARK(0, "\x85\x01", ENCRYPTED, "an encrypted file (PGP)", "encrypted file"),
    MARK(0, "\x85\x02", ENCRYPTED, "an encrypted file (PGP)", "encrypted file"),
    MARK(0, "\x8c\x0d", ENCRYPTED, "an encrypted file (PGP)", "encrypted file"),
    MARK(0, "-----BEGIN AGE", ENCRYPTED, "an encrypted file (age)", "encrypted file"),
    MARK(0, "age-encryption.org/", ENCRYPTED, "an encrypted file (age)", "encrypted file"),
    MARK(0, "LUKS\xba\xbe", ENCRYPTED, "an encrypted disk", "encrypted file"),
    MARK(0, "\x1f\x8b", ARCHIVE, "a gzip archive", "gzip archive"),
    MARK(0, "7z\xbc\xaf\x27\x1c", ARCHIVE, "a 7-Zip archive", "7-Zip archive"),
    MARK(0, "Rar!\x1a\x07", ARCHIVE, "a RAR archive", "RAR archive"),
    MARK(0,
         "\xfd"
         "7zXZ",
         ARCHIVE, "an xz archive", "xz archive"),
    MARK(0, "\x28\xb5\x2f\xfd", ARCHIVE, "a zstd archive", "zstd archive"),
    MARK(0, "BZh", ARCHIVE, "a bzip2 archive", "bzip2 archive"),
    MARK(257, "ustar", ARCHIVE, "a tar archive", "tar archive"),
    MARK(0, "SQLite format 3", DOCUMENT, "an SQLite database", "SQLite database"),
    MARK(0, "%PDF-", DOCUMENT, "a PDF document", "PDF"),
    MARK(0, "%!PS", DOCUMENT, "a PostScript document", "PostScript"),
    MARK(0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", DOCUMENT, "an Office document", "Office document"),
    MARK(0,
         "\x7f"
         "ELF",
         PROGRAM, "a program", "program"),
    MARK(0, "MZ", PROGRAM, "a program", "program"),
};

static bool has(const uint8_t *head, size_t n, const char *text)
{
    size_t length = strlen(text);
    for (size_t i = 0; i + length <= n; i++)
        if (memcmp(head + i, text, length) == 0)
            return true;
    return false;
}

/* UTF-8 without controls but line ends and tabs; the last character may be cut. */
static bool is_text(const uint8_t *head, size_t n)
{
    for (size_t at = 0; at < n;) {
        uint32_t code = 0;
        size_t length = um_text_utf8((const char *)head + at, n - at, &code);
        if (!length)
            return n - at < 4 && at > 0 && head[at] >= 0xc0;
        if (um_text_is_control(code) && (!code || !strchr("\t\n\r\f", (int)code)))
            return false;
        at += length;
    }
    return true;
}

static bool starts(const char *text, const char *word)
{
    return um_text_same_n(text, word, strlen(word));
}

static struct um_kind kind_of_text(const uint8_t *head, size_t n)
{
    char text[UM_KIND_HEAD + 1];
    size_t from = n >= 3 && memcmp(head, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    n = n < UM_KIND_HEAD ? n : UM_KIND_HEAD;
    while (from < n && strchr(" \t\r\n", head[from]))
        from++;
    memcpy(text, head + from, n - from);
    text[n - from] = 0;
    if (starts(text, "<!doctype html") || starts(text, "<html") || strstr(text, "<html"))
        return (struct um_kind){UM_KIND_PAGE, "a web page", "web page"};
    if (strstr(text, "<svg"))
        return (struct um_kind){UM_KIND_OTHER_IMAGE, "an SVG drawing", "SVG"};
    if (text[0] == '<')
        return (struct um_kind){UM_KIND_TEXT, "an XML text", "XML"};
    if (text[0] == '{' || text[0] == '[')
        return (struct um_kind){UM_KIND_TEXT, "a JSON text", "JSON"};
    return (struct um_kind){UM_KIND_TEXT, "a text", "text"};
}

/* A zip may be many things: by the names of its first entries. */
static struct um_kind kind_of_zip(const uint8_t *head, size_t n)
{
    if (n > 6 && head[6] & 1)
        return (struct um_kind){UM_KIND_ENCRYPTED, "an encrypted zip archive", "encrypted archive"};
    if (has(head, n, "data.pkl") || has(head, n, "/version") || has(head, n, "byteorder"))
        return (struct um_kind){UM_KIND_WEIGHTS, "a PyTorch file", "PyTorch file"};
    if (has(head, n, "[Content_Types].xml"))
        return (struct um_kind){UM_KIND_DOCUMENT, "an Office document", "Office document"};
    return (struct um_kind){UM_KIND_ARCHIVE, "a zip archive", "zip archive"};
}

static bool is_safetensors(const uint8_t *head, size_t n)
{
    return n > 10 && head[8] == '{' && (head[9] == '"' || head[9] == '}') && !head[5] && !head[6] &&
           !head[7];
}

/* Field 1 (ir_version, a small number), then field 2 (producer) or 7 (graph) of a ModelProto. */
static bool is_onnx(const uint8_t *head, size_t n)
{
    return n > 4 && head[0] == 8 && head[1] > 0 && head[1] < 32 &&
           (head[2] == 0x12 || head[2] == 0x1a || head[2] == 0x3a || head[2] == 0x42);
}

/* Without its preamble: an element of group 2 or 8, with its kind of value or a short even length.
 */
static bool is_dicom(const uint8_t *head, size_t n)
{
    enum { ELEMENT = 8, LONG = 256 };
    if (n < ELEMENT || (head[0] != 2 && head[0] != 8) || head[1] || head[3] > 1)
        return false;
    bool kind = head[4] >= 'A' && head[4] <= 'Z' && head[5] >= 'A' && head[5] <= 'Z';
    size_t length =
        (size_t)head[4] | (size_t)head[5] << 8 | (size_t)head[6] << 16 | (size_t)head[7] << 24;
    return kind || (length > 0 && length <= LONG && length % 2 == 0);
}

/* Its lines may come in any order. */
static bool is_meta(const uint8_t *head, size_t n)
{
    return has(head, n < 7 ? n : 7, "Comment") &&
           (has(head, n, "\nNDims") || has(head, n, "\nObjectType"));
}

static bool is_bmp(const uint8_t *head, size_t n)
{
    return n >= 18 && head[0] == 'B' && head[1] == 'M' && head[14] >= 12 && !head[15] &&
           !head[16] && !head[17];
}

static bool is_mpeg_ts(const uint8_t *head, size_t n)
{
    size_t packet = 188, first = 0;
    if (n > 4 && head[0] != 0x47 && head[4] == 0x47) { /* with a time stamp each */
        packet = 192;
        first = 4;
    }
    if (n < first + 2 * packet + 1)
        return false;
    for (size_t at = first; at < n; at += packet)
        if (head[at] != 0x47)
            return false;
    return true;
}

struct um_kind um_kind_of(const uint8_t *head, size_t n)
{
    if (n == 0)
        return (struct um_kind){UM_KIND_EMPTY, "an empty file", "empty file"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        const struct mark *m = &marks[i];
        if (n >= (size_t)m->at + m->length && memcmp(head + m->at, m->bytes, m->length) == 0)
            return (struct um_kind){m->sort, m->what, m->name};
    }
    if (is_bmp(head, n))
        return (struct um_kind){UM_KIND_IMAGE, "a BMP image", "BMP"};
    if (n >= 4 && memcmp(head, "PK\3\4", 4) == 0)
        return kind_of_zip(head, n);
    if (is_safetensors(head, n))
        return (struct um_kind){UM_KIND_WEIGHTS, "a safetensors file", "safetensors file"};
    if (is_meta(head, n))
        return (struct um_kind){UM_KIND_IMAGE, "a MetaImage file", "MetaImage"};
    if (is_dicom(head, n))
        return (struct um_kind){UM_KIND_DICOM, "a DICOM file", "DICOM"};
    if (is_mpeg_ts(head, n))
        return (struct um_kind){UM_KIND_VIDEO, "an MPEG transport stream", "MPEG-TS video"};
    if (is_text(head, n))
        return kind_of_text(head, n);
    if (is_onnx(head, n))
        return (struct um_kind){UM_KIND_WEIGHTS, "an ONNX network", "ONNX network"};
    return (struct um_kind){UM_KIND_UNKNOWN, "", ""};
}
