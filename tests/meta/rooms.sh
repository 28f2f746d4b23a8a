#!/bin/bash
# SPDX-License-Identifier: MIT
# Who may include whom: core/ knows nobody, drivers know core/, conf/ ties drivers to sections, and
# only fs/ knows FUSE, but no driver by name.
. "$(dirname "$0")/../mount/lib.sh"
cd "$(dirname "$0")/../.." || exit 1

# Includes in room $1 of ours that do not match the regular expression $2.
includes_only() {
	local found

	found=$(grep -rnE '^[[:space:]]*#[[:space:]]*include[[:space:]]+"' --include='*.[ch]' "$1" |
		grep -vE "include[[:space:]]+\"($2)\"")
	check_equal "" "$found" "what must not be included"
	# The rule is of use only if there is something that it applies to.
	[ "$(find "$1" -name '*.c' | wc -l)" -gt 0 ] || not_ok "no source files in $1"
}

# Only headers that are there, so that "core/../fs/x.h" is no way around.
no_detours() {
	check_equal "" "$(grep -rnE '#[[:space:]]*include.*\.\./' --include='*.[ch]' core conf fs backends)"
}

# no_mention ROOM REGEX: outside of comments.
no_mention() {
	local file found=""

	while IFS= read -r file; do
		found+=$(gcc -fpreprocessed -dD -E -P "$file" 2>/dev/null | grep -nE "$2" | sed "s|^|$file: |")
	done < <(find "$1" -name '*.[ch]')
	check_equal "" "$found" "what must not be mentioned"
}

# Driver names as strings or symbols: "file" is too common a word to be refused anywhere else.
no_driver_names() {
	local drivers

	drivers=$(sed -n 's/^\t&\([a-z0-9_]*\)_driver,$/\1/p' backends/list.c | paste -sd '|')
	check_match '^[a-z]' echo "$drivers"
	no_mention fs "\"($drivers)\"|\\<($drivers)_driver\\>"
	no_mention core "\"($drivers)\"|\\<($drivers)_driver\\>"
	no_mention conf "\\<($drivers)_driver\\>"
	check_equal "" "$(grep -ln 'backends/' -r --include='*.[ch]' core conf fs | grep -vx fs/main.c)" \
		"who includes backends/"
}

one_file_knows_the_wire() {
	local files

	files=$(grep -lE '#[[:space:]]*include <linux/fuse.h>|^struct fuse_(in|out)_header' \
		-r --include='*.[ch]' core conf fs backends)
	[ "$(wc -w <<<"$files")" -le 1 ] || not_ok "several files know kernel wire structures: $files"
	check_equal "" "$(grep -v '^fs/' <<<"$files" | grep .)"
}

only_fs_knows_fuse() {
	check_equal "" "$(grep -rnE '#[[:space:]]*include[[:space:]]+<fuse|<linux/fuse' --include='*.[ch]' \
		core conf backends)"
}

licence_everywhere() {
	check_equal "" "$(grep -rL SPDX-License-Identifier --include='*.[ch]' --include='*.sh' \
		core conf fs backends tests scripts)"
}

test_case "core includes only core and the option table" includes_only core 'core/[a-z_]+\.h|conf/option\.h'
test_case "drivers include only core, drivers and the option table" \
	includes_only backends 'core/[a-z_]+\.h|backends/[a-z_/]+\.h|conf/option\.h'
test_case "conf includes only core and conf" includes_only conf 'core/[a-z_]+\.h|conf/[a-z_]+\.h'
test_case "fs includes only core, conf, fs, and the list of drivers" \
	includes_only fs 'core/[a-z_]+\.h|conf/[a-z_]+\.h|fs/[a-z_]+\.h|backends/list\.h'
test_case "no detours" no_detours
test_case "only fs knows FUSE" only_fs_knows_fuse
test_case "one file knows the wire" one_file_knows_the_wire
test_case "nobody but the list knows drivers by name" no_driver_names
test_case "every file names its licence" licence_everywhere
