# SPDX-License-Identifier: Apache-2.0
# GPU kernels as images inside the library: one fatbin per source of UM_KERNELS, with machine code for every
# architecture in UM_CUDA_ARCHS and PTX for others. Sets UM_CUDA_IMAGES, the source that holds them. Without nvcc
# (12.8 or newer) the library is built without GPU kernels and says so.
option(UM_CUDA "GPU kernels, where nvcc is" ON)
set(UM_CUDA_ARCHS "90" CACHE STRING "GPU architectures to build machine code for, e.g. 80;86;89;90;100;120")
set(UM_CUDA_IMAGES src/device/cuda_images.c)
if(NOT UM_CUDA)
  message(STATUS "GPU kernels: off")
  return()
endif()
find_program(UM_NVCC nvcc HINTS /usr/local/cuda/bin $ENV{CUDA_HOME}/bin)
if(UM_NVCC)
  execute_process(COMMAND ${UM_NVCC} --version OUTPUT_VARIABLE nvcc_version)
  string(REGEX MATCH "release ([0-9.]+)" _ "${nvcc_version}")
  set(nvcc_version "${CMAKE_MATCH_1}")
endif()
if(NOT UM_NVCC)
  message(STATUS "GPU kernels: skipped, no nvcc")
  return()
elseif(nvcc_version VERSION_LESS 12.8)
  message(STATUS "GPU kernels: skipped, nvcc ${nvcc_version} is older than 12.8")
  return()
elseif(NOT UM_CUDA_ARCHS)
  message(FATAL_ERROR "UM_CUDA_ARCHS is empty: want architectures, e.g. 80;90 (or -DUM_CUDA=OFF for no GPU kernels)")
endif()
list(SORT UM_CUDA_ARCHS COMPARE NATURAL) # in whatever order they were given
message(STATUS "GPU kernels: nvcc ${nvcc_version}, sm ${UM_CUDA_ARCHS}")

# PTX for what is newer than the list: of its oldest architecture, so that any GPU from there on can run it.
list(GET UM_CUDA_ARCHS 0 ptx)
if(ptx EQUAL 90)
  set(ptx 80)
endif()
# Machine code up to sm_90 is made of that PTX, too: the same to the byte as from PTX of its own, in two thirds of the
# time. Newer architectures have instructions that only PTX of theirs asks for.
set(code compute_${ptx})
set(gencode "")
foreach(arch ${UM_CUDA_ARCHS})
  if(arch GREATER 90)
    list(APPEND gencode -gencode arch=compute_${arch},code=sm_${arch})
  else()
    string(APPEND code ",sm_${arch}")
  endif()
endforeach()
list(APPEND gencode -gencode arch=compute_${ptx},code=[${code}])
set(UM_CUDA_IMAGES ${CMAKE_CURRENT_BINARY_DIR}/cuda_images.c)
set(text "")
set(fatbins "")
foreach(name ${UM_KERNELS})
  set(fatbin ${CMAKE_CURRENT_BINARY_DIR}/kernels/${name}.fatbin)
  add_custom_command(OUTPUT ${fatbin}
    COMMAND ${UM_NVCC} -fatbin ${gencode} -std=c++17 -O3 -Xfatbin -compress-all -Werror all-warnings -MD -MF ${fatbin}.d
            -I ${PROJECT_SOURCE_DIR}/src -I ${PROJECT_SOURCE_DIR}/include
            ${PROJECT_SOURCE_DIR}/src/nn/cuda/${name}.cu -o ${fatbin}
    DEPENDS ${PROJECT_SOURCE_DIR}/src/nn/cuda/${name}.cu DEPFILE ${fatbin}.d
    COMMENT "GPU kernels: ${name}.cu" VERBATIM)
  list(APPEND fatbins ${fatbin})
  string(APPEND text "__asm__(\".section .rodata\\n.balign 64\\num_image_${name}:\\n.incbin \\\"${fatbin}\\\"\\n\"\n"
                     "        \".previous\\n\");\n"
                     "extern const unsigned char um_image_${name}[] __attribute__((visibility(\"hidden\")));\n")
endforeach()
file(GENERATE OUTPUT ${UM_CUDA_IMAGES} CONTENT "/* Written by cmake/cuda.cmake. */
#include \"device/cuda_driver.h\"
#include \"nn/cuda/images.h\"
#include \"nn/cuda/test.h\"

${text}
#define NAME(kernel) #kernel,
#define IMAGE(name, kernels) {#name, um_image_##name, (const char *const[]){kernels(NAME) NULL}},
const struct um_cuda_image um_cuda_images[] = {
    UM_CUDA_IMAGES(IMAGE) IMAGE(test, UM_CUDA_TEST_KERNELS){NULL, NULL, NULL}};
")
set_source_files_properties(${UM_CUDA_IMAGES} PROPERTIES OBJECT_DEPENDS "${fatbins}")
