# SPDX-License-Identifier: Apache-2.0
# cmake -DFOLDER=src/web/page -DOUT=page.c -P cmake/embed.cmake: the viewer's files as arrays of bytes.
set(rows "")
set(arrays "")
set(index 0)
foreach(row "/|index.html|text/html$<charset=utf-8" "/viewer.css|viewer.css|text/css$<charset=utf-8"
        "/viewer.js|viewer.js|text/javascript$<charset=utf-8" "/worker.js|worker.js|text/javascript$<charset=utf-8"
        "/icon.svg|icon.svg|image/svg+xml")
  string(REPLACE "|" ";" row "${row}")
  list(GET row 0 path)
  list(GET row 1 file)
  list(GET row 2 type)
  string(REPLACE "$<" "; " type "${type}") # a semicolon would part a list
  file(READ ${FOLDER}/${file} bytes HEX)
  string(LENGTH "${bytes}" size)
  math(EXPR size "${size} / 2")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
  string(APPEND arrays "static const unsigned char file${index}[] = {${bytes}};\n")
  string(APPEND rows "    {\"${path}\", \"${type}\", file${index}, ${size}},\n")
  math(EXPR index "${index} + 1")
endforeach()
file(WRITE ${OUT} "#include \"web/page.h\"\n\n${arrays}\nconst struct um_web_page um_web_pages[] = {\n${rows}};\nconst size_t um_web_page_count = ${index};\n")
