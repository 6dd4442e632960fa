#!/bin/sh
# run-tests.sh TREE BINARIES FLAG...: run the test binaries that BINARIES/list
# names with the flags, and those that stand behind the name, each in its package's
# directory of TREE.
#
# It is the same on this machine and in a guest. What it says itself begins with
# "@kernels", always on a line of its own, and is read by report.go.
set -u
tree=$1 binaries=$2
shift 2
passed=0 failed=0
export PORTREEVE_TEST_BINARY="$binaries/portreeve" # for tests that would build it

say() {
	printf '\n@kernels %s\n' "$*"
}

say release "$(uname -r)"
say data-path "$(sh "$tree/testenv/kernels/data-path.sh" "$tree" "$PORTREEVE_TEST_BINARY" 2>&1)"
while read -r package own; do
	say package "$package"
	# shellcheck disable=SC2086 # words
	cd "$tree/$package" && "$binaries/$package.test" -test.v=test2json -test.paniconexit0 "$@" $own 2>&1 </dev/null
	code=$?
	say exit "$package" "$code"
	if [ "$code" = 0 ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
done <"$binaries/list"
say end "$passed" "$failed"
