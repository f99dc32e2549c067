# SPDX-License-Identifier: Apache-2.0
# The command on Debian, for processors: docs/guides/service.md. On a GPU machine build with script/build --release instead.
FROM debian:12 AS build
WORKDIR /src
COPY . .
RUN script/bootstrap
RUN cmake --preset release -DUM_CUDA=OFF
RUN cmake --build --preset release --target libultramotion.so ultramotion_cli ultramotion_man
RUN cmake --install build --prefix /opt/ultramotion --strip

FROM debian:12-slim
RUN apt-get update && apt-get install -y --no-install-recommends \
        libavcodec59 libavdevice59 libavformat59 libcjson1 libjpeg62-turbo libpng16-16 libswscale6 libtiff6 libwebsockets17 libyaml-0-2 zlib1g && \
    rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/ultramotion /usr/local
RUN ldconfig && useradd --system --create-home --home-dir /var/lib/ultramotion ultramotion
USER ultramotion
WORKDIR /var/lib/ultramotion
EXPOSE 18945 8080
HEALTHCHECK --interval=10s --start-period=60s CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /healthz HTTP/1.0\\r\\nHost: 127.0.0.1\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["ultramotion"]
CMD ["serve", "igtl://host.docker.internal:18944", "-o", "igtl::18945", "-o", "web:0.0.0.0:8080"]
