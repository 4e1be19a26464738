# Debian packages, by `cpack -G DEB`: wcxfs (programs), libwcx0, libwcx-dev and python3-wcx.
#
# Configure with -DCMAKE_INSTALL_PREFIX=/usr.  The CUDA runtime, where it is built in, is linked statically, and the driver
# is looked for at run time: a package built with CUDA installs and runs on a machine without.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME wcxfs)
set(CPACK_PACKAGE_VENDOR "The wcxfs authors")
set(CPACK_PACKAGE_CONTACT "The wcxfs authors <maintainers@wcxfs.example>")
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_STRIP_FILES ON)
set(CPACK_SET_DESTDIR ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
	OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_CURRENT_SOURCE_DIR}/debian_files.cmake)

set(soname_package libwcx${PROJECT_VERSION_MAJOR})
set(CPACK_COMPONENTS_ALL wcxfs libwcx libwcx-dev python3-wcx)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)

set(CPACK_DEBIAN_WCXFS_PACKAGE_NAME wcxfs)
set(CPACK_DEBIAN_WCXFS_PACKAGE_SECTION utils)
set(CPACK_DEBIAN_WCXFS_PACKAGE_DEPENDS "fuse3")
set(CPACK_COMPONENT_WCXFS_DESCRIPTION "losslessly compressed safetensors stores, mounted as the originals
Packs safetensors files (the weights of neural networks) without loss, and
mounts a directory of packed files, so that unmodified programs read the
original bytes.  Decodes on the CPU, or on an Nvidia GPU where there is one.
.
This package has the programs wcx and wcxfs.")

set(CPACK_DEBIAN_LIBWCX_PACKAGE_NAME ${soname_package})
set(CPACK_DEBIAN_LIBWCX_PACKAGE_SECTION libs)
# Not by CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS: its scripts call ldconfig, where Debian has a trigger.
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/shlibs "libwcx ${PROJECT_VERSION_MAJOR} ${soname_package} (>= ${PROJECT_VERSION})\n")
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/triggers "activate-noawait ldconfig\n")
set(CPACK_DEBIAN_LIBWCX_PACKAGE_CONTROL_EXTRA ${CMAKE_CURRENT_BINARY_DIR}/shlibs ${CMAKE_CURRENT_BINARY_DIR}/triggers)
set(CPACK_COMPONENT_LIBWCX_DESCRIPTION "library that reads packed safetensors files
Reads .wcx files, or loads them into a GPU's memory.
.
This package has the shared library.")

set(CPACK_DEBIAN_LIBWCX-DEV_PACKAGE_NAME libwcx-dev)
set(CPACK_DEBIAN_LIBWCX-DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_LIBWCX-DEV_PACKAGE_DEPENDS "${soname_package} (= ${PROJECT_VERSION})")
set(CPACK_DEBIAN_LIBWCX-DEV_PACKAGE_SHLIBDEPS OFF)
set(CPACK_COMPONENT_LIBWCX-DEV_DESCRIPTION "library that reads packed safetensors files: development files
Reads .wcx files, or loads them into a GPU's memory.
.
This package has the header, wcx.pc and the CMake package wcx.")

set(CPACK_DEBIAN_PYTHON3-WCX_PACKAGE_NAME python3-wcx)
set(CPACK_DEBIAN_PYTHON3-WCX_PACKAGE_SECTION python)
set(CPACK_DEBIAN_PYTHON3-WCX_PACKAGE_ARCHITECTURE all)
set(CPACK_DEBIAN_PYTHON3-WCX_PACKAGE_SHLIBDEPS OFF)
set(CPACK_DEBIAN_PYTHON3-WCX_PACKAGE_DEPENDS
	"python3, python3-numpy, ${soname_package} (= ${PROJECT_VERSION})")
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/postinst "#!/bin/sh\nset -e\nif [ \"$1\" = configure ]; then py3compile -p python3-wcx; fi\n")
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/prerm "#!/bin/sh\nset -e\npy3clean -p python3-wcx\n")
set(CPACK_DEBIAN_PYTHON3-WCX_PACKAGE_CONTROL_EXTRA ${CMAKE_CURRENT_BINARY_DIR}/postinst ${CMAKE_CURRENT_BINARY_DIR}/prerm)
set(CPACK_COMPONENT_PYTHON3-WCX_DESCRIPTION "Python package that loads packed safetensors files
Loads tensors from .wcx files, as numpy arrays or torch tensors, past the
file system.  Where torch is installed and a GPU is there, decodes on it.
.
This package has the Python package wcx.")
include(CPack)
