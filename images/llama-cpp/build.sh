#!/bin/sh
# Puts llama-server, and what it loads, into /app. Run in the image's first stage.
set -eu

mkdir -p /app
if [ -f /recipe/prebuilt/llama-server ]; then
    cp /recipe/prebuilt/llama-server /app/llama-server
    if /app/llama-server --version; then
        echo "==> llama-server: as it was built on this machine before"
        exit 0
    fi
    rm /app/llama-server
fi

echo "==> tools"
apt-get -q update
DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends ca-certificates curl g++ cmake ninja-build
echo "==> source"
curl -fsSL -o /source.tar.gz "$SOURCE"
echo "$SHA256  /source.tar.gz" | sha256sum -c -
mkdir /source
tar -x -f /source.tar.gz -C /source --strip-components=1
# Time goes to ggml's kernels, which keep -O3; the rest at -O1 builds in two thirds of the time.
# shellcheck disable=SC2016
printf 'set(CMAKE_C_FLAGS_RELEASE "-O3 -DNDEBUG")\nset(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")\n' > /kernels.cmake

case $NATIVE in
    ON) set -- -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF ;;
    # One program, for processors with AVX2.
    STATIC) set -- -DGGML_NATIVE=OFF -DBUILD_SHARED_LIBS=OFF ;;
    # Code for every kind of processor, of which the right one is loaded.
    *) set -- -DGGML_NATIVE=OFF -DBUILD_SHARED_LIBS=ON -DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON ;;
esac
if [ "$CUDA" = ON ]; then
    set -- "$@" -DGGML_CUDA=ON ${CUDA_ARCHITECTURES:+"-DCMAKE_CUDA_ARCHITECTURES=$CUDA_ARCHITECTURES"}
fi
echo "==> llama-server, some minutes"
# What would reach the network during the build is off.
cmake -S /source/vendor/llama.cpp -B /objects -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DLLAMA_BUILD_COMMON=ON -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_SERVER=ON \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
    -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_LLGUIDANCE=OFF -DLLAMA_OPENSSL=OFF \
    -DLLAMA_BUILD_NUMBER=0 -DLLAMA_BUILD_COMMIT=source-package -DGGML_CCACHE=OFF -DGGML_OPENMP=OFF \
    -DCMAKE_EXE_LINKER_FLAGS="-static-libstdc++ -static-libgcc" \
    -DCMAKE_CXX_FLAGS_RELEASE="-O1 -DNDEBUG" -DCMAKE_PROJECT_ggml_INCLUDE=/kernels.cmake \
    -DCMAKE_INSTALL_RPATH="\$ORIGIN" -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON "$@"
ninja -C /objects llama-server
cp /objects/bin/llama-server /app/
find /objects/bin -name '*.so*' -exec cp -P {} /app/ ';'
strip --strip-unneeded /app/*
/app/llama-server --version
