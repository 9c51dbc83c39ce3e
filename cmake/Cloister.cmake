# The few commands that every module uses; a module's CMakeLists.txt is a list of names.
#
#   cloister_library(attest SOURCES judge.cpp ... USES cloister::base KEEPS OpenSSL::Crypto)
#       target cloister_attest, alias cloister::attest. USES is part of the interface, KEEPS is private.
#   cloister_program(cloister-aggregator SOURCES main.cpp USES cloister::enclave)
#   cloister_test(attest SOURCES judge_test.cpp ... USES cloister::attest [LABELS unit])
#       program attest_test, one ctest entry per GoogleTest case, named attest.Suite.Case.

add_library(cloister_flags INTERFACE)
target_compile_features(cloister_flags INTERFACE cxx_std_20)
target_compile_options(cloister_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wnon-virtual-dtor
  -Wno-restrict                # GCC 12 sees one in "literal" + std::string that is not there (GCC bug 105651)
  -ffp-contract=off            # the same bits on every machine (docs/how-it-works.md, "Same bits")
  -fstack-protector-strong)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # A false alarm of GCC 12 over every Asio coroutine: it takes the frame's own operator delete for a mismatch.
  target_compile_options(cloister_flags INTERFACE -Wno-mismatched-new-delete)
endif()
if(CLOISTER_WERROR)
  target_compile_options(cloister_flags INTERFACE -Werror)
endif()
target_include_directories(cloister_flags INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
target_compile_definitions(cloister_flags INTERFACE BOOST_ASIO_NO_DEPRECATED BOOST_ASIO_DISABLE_BOOST_COROUTINE)
if(CLOISTER_SANITIZE)
  target_compile_options(cloister_flags INTERFACE -fsanitize=${CLOISTER_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(cloister_flags INTERFACE -fsanitize=${CLOISTER_SANITIZE})
endif()

function(cloister_library name)
  cmake_parse_arguments(A "" "" "SOURCES;USES;KEEPS" ${ARGN})
  add_library(cloister_${name} STATIC ${A_SOURCES})
  add_library(cloister::${name} ALIAS cloister_${name})
  target_link_libraries(cloister_${name} PUBLIC ${A_USES} PRIVATE cloister_flags ${A_KEEPS})
  target_include_directories(cloister_${name} PUBLIC ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
  set_target_properties(cloister_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
endfunction()

function(cloister_program name)
  cmake_parse_arguments(A "" "" "SOURCES;USES" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE cloister_flags ${A_USES})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  if(NOT name MATCHES "^cloister-bench-")  # benchmarks are nobody's to install
    add_dependencies(programs ${name})
    install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endfunction()

function(cloister_test name)
  cmake_parse_arguments(A "" "" "SOURCES;USES;LABELS" ${ARGN})
  if(NOT BUILD_TESTING)
    return()
  endif()
  if(NOT A_LABELS)
    set(A_LABELS unit)
  endif()
  add_executable(${name}_test ${A_SOURCES})
  target_link_libraries(${name}_test PRIVATE cloister_flags ${A_USES} GTest::gmock GTest::gtest GTest::gtest_main)
  target_compile_definitions(${name}_test PRIVATE CLOISTER_SOURCE_DIR="${PROJECT_SOURCE_DIR}" CLOISTER_BINARY_DIR="${PROJECT_BINARY_DIR}")
  set(timeout 300)  # seconds a case; a limit against hangs on a loaded machine, not a measurement
  if(CLOISTER_SANITIZE)
    set(timeout 900)
  endif()
  gtest_discover_tests(${name}_test TEST_PREFIX ${name}. DISCOVERY_TIMEOUT 300
    PROPERTIES LABELS "${A_LABELS}" TIMEOUT ${timeout} SKIP_REGULAR_EXPRESSION "skipped, data not found")
endfunction()
