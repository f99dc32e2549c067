/* SPDX-License-Identifier: Apache-2.0 */
/* libav, loaded when the first video is opened: it brings some hundred libraries, which nobody who
 * reads images shall wait for, and a program that was built with it runs where it is not. */
#ifndef UM_IO_LIBAV_H
#define UM_IO_LIBAV_H

#include "base/status.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/display.h>
#include <libavutil/log.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>

/* FFmpeg 7 keeps a stream's side data with its codec's parameters, and writes constant bytes. */
#if LIBAVFORMAT_VERSION_MAJOR < 61
#define UM_LIBAV_SIDE_DATA(X) X(avformat, av_stream_get_side_data)
typedef uint8_t um_libav_written;
#else
#define UM_LIBAV_SIDE_DATA(X) X(avcodec, av_packet_side_data_get)
typedef const uint8_t um_libav_written;
#endif

/* What is used of it. __typeof__, which gcc and clang have, takes each type from its header: fifty
 * types written again could be wrong. */
#define UM_LIBAV(X)                               \
    X(avutil, av_dict_set)                        \
    X(avutil, av_dict_free)                       \
    X(avutil, av_frame_alloc)                     \
    X(avutil, av_frame_free)                      \
    X(avutil, av_frame_get_buffer)                \
    X(avutil, av_frame_make_writable)             \
    X(avutil, av_frame_unref)                     \
    X(avutil, av_freep)                           \
    X(avutil, av_log_set_level)                   \
    X(avutil, av_malloc)                          \
    X(avutil, av_max_alloc)                       \
    X(avutil, av_opt_set)                         \
    X(avutil, av_pix_fmt_desc_get)                \
    X(avutil, av_strerror)                        \
    X(avcodec, av_packet_alloc)                   \
    X(avcodec, av_packet_free)                    \
    X(avcodec, av_packet_rescale_ts)              \
    X(avcodec, av_packet_unref)                   \
    X(avcodec, avcodec_alloc_context3)            \
    X(avcodec, avcodec_descriptor_get)            \
    X(avcodec, avcodec_find_encoder)              \
    X(avcodec, avcodec_free_context)              \
    X(avcodec, avcodec_get_name)                  \
    X(avcodec, avcodec_open2)                     \
    X(avcodec, avcodec_parameters_from_context)   \
    X(avcodec, avcodec_parameters_to_context)     \
    X(avcodec, avcodec_receive_frame)             \
    X(avcodec, avcodec_receive_packet)            \
    X(avcodec, avcodec_send_frame)                \
    X(avcodec, avcodec_send_packet)               \
    X(avformat, av_find_best_stream)              \
    X(avformat, av_find_input_format)             \
    X(avformat, av_interleaved_write_frame)       \
    X(avformat, av_read_frame)                    \
    X(avformat, av_write_trailer)                 \
    X(avformat, avformat_alloc_context)           \
    X(avformat, avformat_alloc_output_context2)   \
    X(avformat, avformat_close_input)             \
    X(avformat, avformat_find_stream_info)        \
    X(avformat, avformat_free_context)            \
    X(avformat, avformat_index_get_entries_count) \
    X(avformat, avformat_index_get_entry)         \
    X(avformat, avformat_new_stream)              \
    X(avformat, avformat_open_input)              \
    X(avformat, avformat_write_header)            \
    X(avformat, avio_alloc_context)               \
    X(avformat, avio_context_free)                \
    X(avformat, avio_flush)                       \
    X(swscale, sws_freeContext)                   \
    X(swscale, sws_getCachedContext)              \
    X(swscale, sws_getCoefficients)               \
    X(swscale, sws_scale)                         \
    X(swscale, sws_setColorspaceDetails)          \
    UM_LIBAV_SIDE_DATA(X)

struct um_libav {
#define UM_LIBAV_MEMBER(library, name) __typeof__(name) *name;
    UM_LIBAV(UM_LIBAV_MEMBER)
#undef UM_LIBAV_MEMBER
};

/* The functions, loaded once; NULL with the reason as the error. */
const struct um_libav *um_libav(void);

/* "what: why", as an error of `status`. */
um_status um_libav_fail(um_status status, const char *what, int code);

#endif
