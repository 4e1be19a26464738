# Run by cpack on the files of all packages: adds what Debian's policy wants beyond an installation.
file(READ "${CMAKE_CURRENT_LIST_DIR}/../../LICENSE" licence)
string(REGEX REPLACE "^MIT License\n\nCopyright \\(c\\) ([^\n]*)\n\n" "" licence "${licence}")
set(holder "${CMAKE_MATCH_1}")
string(REGEX REPLACE "\n\n" "\n.\n" licence "${licence}")
string(REGEX REPLACE "\n" "\n " licence "${licence}")
string(STRIP "${licence}" licence)
if(DEFINED ENV{SOURCE_DATE_EPOCH})
	set(date_argument -d "@$ENV{SOURCE_DATE_EPOCH}")
endif()
execute_process(COMMAND date -u -R ${date_argument} OUTPUT_VARIABLE date OUTPUT_STRIP_TRAILING_WHITESPACE)

foreach(component IN LISTS CPACK_COMPONENTS_ALL)
	string(TOUPPER ${component} upper)
	set(package ${CPACK_DEBIAN_${upper}_PACKAGE_NAME})
	set(top "${CPACK_TEMPORARY_INSTALL_DIRECTORY}/${component}")
	set(docs "${top}/usr/share/doc/${package}")
	file(WRITE "${docs}/copyright"
		"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
		"Upstream-Name: wcxfs\n\nFiles: *\nCopyright: ${holder}\nLicense: MIT\n ${licence}\n")
	file(WRITE "${docs}/changelog"
		"wcxfs (${CPACK_PACKAGE_VERSION}) unstable; urgency=medium\n\n"
		"  * Version ${CPACK_PACKAGE_VERSION}; changelog.md in the package wcxfs tells what changed.\n\n"
		" -- ${CPACK_PACKAGE_CONTACT}  ${date}\n")
	if(component STREQUAL libwcx) # cpack writes these scripts, whatever it is told
		file(WRITE "${top}/usr/share/lintian/overrides/${package}"
			"${package}: maintscript-calls-ldconfig *\n")
	endif()
	file(GLOB pages "${top}/usr/share/man/man*/*.[1-8]")
	foreach(page IN LISTS pages ITEMS "${docs}/changelog")
		if(IS_SYMLINK "${page}")
			file(READ_SYMLINK "${page}" target)
			file(REMOVE "${page}")
			file(CREATE_LINK "${target}.gz" "${page}.gz" SYMBOLIC)
		else()
			execute_process(COMMAND gzip -9n "${page}" COMMAND_ERROR_IS_FATAL ANY)
		endif()
	endforeach()
	file(REMOVE "${docs}/LICENSE") # the licence is in copyright
	file(GLOB_RECURSE files "${top}/usr/share/doc/*" "${top}/usr/share/lintian/*")
	file(CHMOD ${files} PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
endforeach()
