# libtorch from the PyTorch wheel, as the target cloister::torch: headers and two libraries, nothing else of it.
#
# Looked for where Torch_DIR says (<torch>/share/cmake/Torch), else in the virtual environment .venv of the source tree.
# find_package(Torch) is not used: it binds Debian's Protobuf to the wheel's targets, whose headers are another version, and wants
# a CUDA toolkit when the wheel is the CUDA build. The trainer computes on the CPU with either wheel.

set(CLOISTER_TORCH_VERSION 2.13.0)

if(NOT Torch_DIR)
  file(GLOB found ${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch/share/cmake/Torch)
  list(APPEND found none)
  list(GET found 0 Torch_DIR)
endif()
get_filename_component(CLOISTER_TORCH_ROOT "${Torch_DIR}/../../.." ABSOLUTE)
set(version_header "${CLOISTER_TORCH_ROOT}/include/torch/headeronly/version.h")
if(NOT EXISTS "${version_header}")
  message(FATAL_ERROR "cloister-trainer needs libtorch, the wheel torch==${CLOISTER_TORCH_VERSION}: scripts/demo and scripts/test install it "
    "into .venv; or set Torch_DIR to <torch>/share/cmake/Torch, or build without the trainer: -DCLOISTER_TORCH=OFF. Looked in: ${Torch_DIR}")
endif()
file(STRINGS "${version_header}" parts REGEX "#define TORCH_VERSION_(MAJOR|MINOR|PATCH) [0-9]+")
string(REGEX REPLACE "[^0-9;]" "" parts "${parts}")
string(REPLACE ";" "." found_version "${parts}")
if(NOT found_version VERSION_EQUAL CLOISTER_TORCH_VERSION)
  message(WARNING "libtorch ${CLOISTER_TORCH_VERSION} is the one that the tests know; found ${found_version} in ${CLOISTER_TORCH_ROOT}")
endif()

add_library(cloister_torch INTERFACE)
add_library(cloister::torch ALIAS cloister_torch)
target_include_directories(cloister_torch SYSTEM INTERFACE ${CLOISTER_TORCH_ROOT}/include)
target_link_libraries(cloister_torch INTERFACE ${CLOISTER_TORCH_ROOT}/lib/libtorch_cpu.so ${CLOISTER_TORCH_ROOT}/lib/libc10.so)
# What libtorch itself links is its own affair: its RUNPATH finds it at run time, also the CUDA build's many libraries.
target_link_options(cloister_torch INTERFACE -Wl,--unresolved-symbols=ignore-in-shared-libs)
