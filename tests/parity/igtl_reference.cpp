/* SPDX-License-Identifier: Apache-2.0 */
/* The OpenIGTLink reference library as the other end, for tests/parity/igtl_parity.py:
 *     igtl_reference plus listen|connect PORT N     N tracked images and strings, then waits to be
 * ended igtl_reference slicer listen|connect PORT N   until N frames came, a line for each message
 * Debian's is 1.11, which speaks version 1. Pixels of frame i are (x + y * 3 + i * 7) % 251, of the
 * phantom's size; its pose is at x = i. */
#include <igtlClientSocket.h>
#include <igtlImageMessage.h>
#include <igtlMessageHeader.h>
#include <igtlOSUtil.h>
#include <igtlServerSocket.h>
#include <igtlStatusMessage.h>
#include <igtlStringMessage.h>
#include <igtlTransformMessage.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

enum { WIDTH = 422, HEIGHT = 558 };

static igtl::Socket::Pointer meet(const char *role, int port)
{
    if (strcmp(role, "listen") == 0) {
        igtl::ServerSocket::Pointer server = igtl::ServerSocket::New();
        if (server->CreateServer(port) < 0)
            exit(2);
        printf("listening\n");
        fflush(stdout);
        igtl::ClientSocket::Pointer peer = server->WaitForConnection(60000);
        if (peer.IsNull())
            exit(2);
        static igtl::ServerSocket::Pointer kept = server;
        return peer.GetPointer();
    }
    igtl::ClientSocket::Pointer client = igtl::ClientSocket::New();
    for (int i = 0; client->ConnectToServer("127.0.0.1", port) != 0; i++) {
        if (i == 100)
            exit(2);
        igtl::Sleep(50);
    }
    return client.GetPointer();
}

static void send(igtl::Socket *peer, igtl::MessageBase *m, const char *device,
                 igtl::TimeStamp::Pointer &stamp)
{
    m->SetDeviceName(device);
    m->SetTimeStamp(stamp);
    m->Pack();
    if (!peer->Send(m->GetPackPointer(), m->GetPackSize()))
        exit(3);
}

static int plus(igtl::Socket *peer, int n)
{
    for (int i = 0; i < n; i++) {
        igtl::TimeStamp::Pointer stamp = igtl::TimeStamp::New();
        stamp->SetTime((igtlUint32)(1700000000 + i), (igtlUint32)250000000 /* ns */);
        igtl::Matrix4x4 pose, place;
        igtl::IdentityMatrix(pose);
        igtl::IdentityMatrix(place);
        pose[0][3] = (float)i;
        place[0][0] = .8f, place[1][0] = .6f, place[0][1] = -.6f, place[1][1] = .8f,
        place[2][3] = 4.5f;
        igtl::TransformMessage::Pointer transform = igtl::TransformMessage::New();
        transform->SetMatrix(pose);
        send(peer, transform, "ProbeToReference", stamp);
        igtl::ImageMessage::Pointer image = igtl::ImageMessage::New();
        image->SetDimensions(WIDTH, HEIGHT, 1);
        image->SetSpacing(.25f, .5f, 1);
        image->SetScalarType(igtl::ImageMessage::TYPE_UINT8);
        image->SetCoordinateSystem(igtl::ImageMessage::COORDINATE_RAS);
        image->AllocateScalars();
        image->SetMatrix(place);
        unsigned char *pixels = (unsigned char *)image->GetScalarPointer();
        for (int y = 0; y < HEIGHT; y++)
            for (int x = 0; x < WIDTH; x++)
                pixels[y * WIDTH + x] = (unsigned char)((x + y * 3 + i * 7) % 251);
        send(peer, image, "Image_Reference", stamp);
        igtl::StringMessage::Pointer text = igtl::StringMessage::New();
        text->SetString("a text that is passed over");
        send(peer, text, "Text", stamp);
        igtl::Sleep(700);
    }
    igtl::Sleep(5000);
    return 0;
}

static int slicer(igtl::Socket *peer, int n)
{
    igtl::StatusMessage::Pointer hello = igtl::StatusMessage::New();
    igtl::TimeStamp::Pointer now = igtl::TimeStamp::New();
    hello->SetCode(igtl::StatusMessage::STATUS_OK);
    send(peer, hello, "Slicer", now);
    for (int frames = 0; frames < n;) {
        igtl::MessageHeader::Pointer header = igtl::MessageHeader::New();
        header->InitPack();
        igtlUint64 got = peer->Receive(header->GetPackPointer(), header->GetPackSize());
        if (got != (igtlUint64)header->GetPackSize())
            return 3;
        header->Unpack();
        igtl::MessageBase::Pointer body;
        igtl::ImageMessage::Pointer image = igtl::ImageMessage::New();
        igtl::TransformMessage::Pointer transform = igtl::TransformMessage::New();
        igtl::StringMessage::Pointer text = igtl::StringMessage::New();
        igtl::StatusMessage::Pointer status = igtl::StatusMessage::New();
        const char *type = header->GetDeviceType();
        body = strcmp(type, "IMAGE") == 0       ? (igtl::MessageBase *)image.GetPointer()
               : strcmp(type, "TRANSFORM") == 0 ? (igtl::MessageBase *)transform.GetPointer()
               : strcmp(type, "STRING") == 0    ? (igtl::MessageBase *)text.GetPointer()
               : strcmp(type, "STATUS") == 0    ? (igtl::MessageBase *)status.GetPointer()
                                                : NULL;
        if (body.IsNull()) {
            peer->Skip(header->GetBodySizeToRead(), 0);
            printf("%s %s skipped\n", type, header->GetDeviceName());
            continue;
        }
        body->SetMessageHeader(header);
        body->AllocatePack();
        got = peer->Receive(body->GetPackBodyPointer(), body->GetPackBodySize());
        igtlUint32 sec = 0, frac = 0;
        header->GetTimeStamp(&sec, &frac);
        bool good = got == (igtlUint64)body->GetPackBodySize() &&
                    (body->Unpack(1) & igtl::MessageHeader::UNPACK_BODY);
        printf("%s %s %s %u.%08x", type, header->GetDeviceName(), good ? "good" : "BAD", sec, frac);
        if (strcmp(type, "IMAGE") == 0) {
            int size[3];
            igtl::Matrix4x4 m;
            float spacing[3];
            image->GetDimensions(size);
            image->GetMatrix(m);
            image->GetSpacing(spacing);
            const unsigned char *p = (const unsigned char *)image->GetScalarPointer();
            unsigned most = 0, wrong = 0;
            int i = (int)sec - 1700000000;
            for (int y = 0; y < size[1]; y++)
                for (int x = 0; x < size[0]; x++) {
                    unsigned v = p[y * size[0] + x];
                    most = v > most ? v : most;
                    wrong += v != (unsigned)((x + y * 3 + i * 7) % 251);
                }
            printf(" %dx%dx%d %g,%g,%g %g,%g,%g,%g most %u wrong %u", size[0], size[1], size[2],
                   spacing[0], spacing[1], spacing[2], m[0][0], m[1][0], m[0][3], m[2][3], most,
                   wrong);
        } else if (strcmp(type, "TRANSFORM") == 0) {
            igtl::Matrix4x4 m;
            transform->GetMatrix(m);
            printf(" %g", m[0][3]);
        } else if (strcmp(type, "STRING") == 0) {
            printf(" %s", text->GetString());
            frames += strcmp(header->GetDeviceName(), "State") == 0; /* the last of a frame */
        }
        printf("\n");
        fflush(stdout);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    igtl::Socket::Pointer peer = meet(argv[2], atoi(argv[3]));
    return strcmp(argv[1], "plus") == 0 ? plus(peer, atoi(argv[4])) : slicer(peer, atoi(argv[4]));
}
