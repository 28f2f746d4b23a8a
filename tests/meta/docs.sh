#!/bin/bash
# SPDX-License-Identifier: MIT
# The manual has every option that the program has, and no other; its pages are well-formed.
. "$(dirname "$0")/../mount/lib.sh"
requires mandoc
cd "$(dirname "$0")/../.." || exit 1
manual=conf/diskfs.conf.5

# The options in a help text: "  name: type; default".
options_of() {
	diskfs --help "$@" | sed -nE 's/^  ([a-z][a-z0-9_]*): .*/\1/p' | sort -u
}

drivers() {
	diskfs --drivers | awk '{ print $1 }'
}

all_options() {
	local driver

	options_of
	for driver in $(drivers); do
		options_of "$driver"
	done
}

# Options are the `.It Ic name` (mdoc) or `.It Cm name` items of the manual.
documented() {
	sed -nE 's/^\.It (Ic|Cm|Va) ([a-z][a-z0-9_]*)( .*)?$/\2/p' "$manual"
}

every_option_documented() {
	check_match . all_options
	check_equal "" "$(comm -23 <(all_options | sort -u) <(documented | sort -u))" \
		"options that the manual does not have"
	check_equal "" "$(comm -13 <(all_options | sort -u) <(documented | sort -u))" \
		"options that only the manual has"
}

# Each driver has a section of its own, with its own options in it.
every_driver_documented() {
	local driver

	for driver in $(drivers); do
		check_match "^\\.S[hs] .*\\<$driver\\>" grep -i '^\.S[hs]' "$manual"
		check_equal "" "$(comm -23 <(options_of "$driver") <(section_of "$driver"))" \
			"options that the manual's part on $driver does not have"
	done
}

section_of() {
	sed -nE "/^\\.S[hs] .*\\<$1\\>/I,/^\\.S[hs] /p; /^\\.S[hs] .*\\<$1\\>/I,/^\\.S[hs] /!d" "$manual" |
		sed -nE 's/^\.It (Ic|Cm|Va) ([a-z][a-z0-9_]*)( .*)?$/\2/p' | sort -u
}

pages_well_formed() {
	check_output "" mandoc -T lint -W warning "$manual"
	check_output "" mandoc -T lint -W warning fs/diskfs.8
}

command_line_documented() {
	local option

	for option in --check --help --drivers --version; do
		check_match "${option#--}" grep -e "Fl -${option#--}\\|${option//-/\\\\-}" fs/diskfs.8
	done
}

readme() {
	local driver

	for driver in $(drivers); do
		check grep -q "\`$driver\`" README.md
	done
	check grep -q 'make run' README.md
	check grep -q 'make check' README.md
}

# The example is a good configuration.
example() {
	cp conf/example.conf "$work"
	truncate -s 1M "$work/readonly.raw"
	check diskfs --check "$work/example.conf"
}

test_case "every option is in the manual, and no other" every_option_documented
test_case "every driver is in the manual" every_driver_documented
test_case "the manual pages are well-formed" pages_well_formed
test_case "the command line is in the manual" command_line_documented
test_case "the README names the drivers" readme
test_case "the example is good" example
