// Package scripts tests the scripts that provide tests with servers. It runs them as
// make does, as root.
package scripts

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// run runs a command and returns what it wrote to standard output, by lines.
func run(t *testing.T, name string, args ...string) []string {
	t.Helper()
	cmd := exec.Command(name, args...)
	var failure strings.Builder
	cmd.Stderr = &failure
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s%s", cmd, err, out, &failure)
	}
	return slices.Collect(strings.Lines(string(out)))
}

// look prints what a server could find in its root. A file that occupied has made holds
// "occupied:", and the users it has made are persons.
const look = `
export LC_ALL=C
grep -rl '^occupied: ' /etc /var/spool /var/mail /var/lib/postfix /var/lib/haproxy /var/lib/ufw /var/lib/fail2ban 2>/dev/null
for dir in /usr/local /run /root /home /opt /srv; do ls -A "$dir" 2>/dev/null; done
cat /etc/passwd /etc/group | grep person
getent passwd 911 912 913 914 915 919 2120
cat /etc/resolv.conf
for user in postfix haproxy Debian-exim opensmtpd opensmtpq inbox; do id "$user"; done
getent group postdrop
for program in postfix exim4 smtpd haproxy nginx firewalld; do command -v "$program"; done
env | grep -v ^PWD= | sort
`

// seen is what look prints, but for the programs of the root.
const seen = `nameserver 127.0.0.1
uid=2101(postfix) gid=2101(postfix) groups=2101(postfix)
uid=2102(haproxy) gid=2102(haproxy) groups=2102(haproxy)
uid=2104(Debian-exim) gid=2104(Debian-exim) groups=2104(Debian-exim)
uid=2105(opensmtpd) gid=2105(opensmtpd) groups=2105(opensmtpd)
uid=2106(opensmtpq) gid=2106(opensmtpq) groups=2106(opensmtpq)
uid=2107(inbox) gid=2107(inbox) groups=2107(inbox)
postdrop:x:2103:
HOME=/root
LC_ALL=C
PATH=/usr/sbin:/usr/bin
`

// program is a line of look with a program's path.
var program = regexp.MustCompile(`^/usr/s?bin/[a-z0-9]+\n$`)

// TestInRootIsTheSameEverywhere looks around in each root as on a machine that has the
// servers and whose users bear their names and numbers.
func TestInRootIsTheSameEverywhere(t *testing.T) {
	roots, err := filepath.Glob("../.build/roots/*.packages")
	if err != nil || len(roots) == 0 {
		t.Fatalf("no roots: %v: run scripts/install-deps test", err)
	}
	t.Setenv("MAIL_CONFIG", "/etc/postfix") // Postfix would obey
	for _, root := range roots {
		name := strings.TrimSuffix(filepath.Base(root), ".packages")
		got := run(t, "./occupied", "./in-root", name, t.TempDir(), "sh", "-c", look)
		got = slices.DeleteFunc(got, program.MatchString)
		if text := strings.Join(got, ""); text != seen {
			t.Errorf("%s: a server sees\n%s, want\n%s", name, text, seen)
		}
	}
}

// TestClosureIsOfTheArchive asks for packages where others are installed under their
// names, in a version that no archive has.
func TestClosureIsOfTheArchive(t *testing.T) {
	closure := run(t, "./occupied", "./apt", "closure", "nginx", "nginx-common", "libnginx-mod-stream")
	for _, want := range []string{`^nginx=1\.`, `^nginx-common=1\.`, `^libnginx-mod-stream=1\.`} {
		if !slices.ContainsFunc(closure, regexp.MustCompile(want).MatchString) {
			t.Errorf("nothing in %q matches %s", closure, want)
		}
	}
}

// archive takes the place of scripts/apt: an archive with one package, which notes that
// it was asked.
const archive = `#!/bin/sh
set -eu
echo "$1" >>"$0.asked"
case $1 in
closure) echo server=1 ;;
download)
	mkdir -p "$2/server/DEBIAN" "$2/server/etc/server"
	printf 'Package: server\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: none\nPre-Depends: dash\nDepends: libc6 (>= 2) | nosuch, coreutils:any\n' >"$2/server/DEBIAN/control"
	dpkg-deb --build "$2/server" "$2/server_1_all.deb" >&2
	;;
esac
`

// TestUnpackAgain removes a package from the machine that a root needs.
func TestUnpackAgain(t *testing.T) {
	tree := t.TempDir()
	copied, err := os.ReadFile("unpack")
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(filepath.Join(tree, "scripts"), 0o755))
	unpack, apt := filepath.Join(tree, "scripts/unpack"), filepath.Join(tree, "scripts/apt")
	must(os.WriteFile(unpack, copied, 0o755))
	must(os.WriteFile(apt, []byte(archive), 0o755))
	check := func(want string) {
		t.Helper()
		run(t, unpack, "root", "server")
		asked, err := os.ReadFile(apt + ".asked")
		must(err)
		if got := strings.Join(strings.Fields(string(asked)), " "); got != want {
			t.Errorf("the archive was asked for %q, want %q", got, want)
		}
	}
	const once = "closure download"
	check(once)
	check(once)
	needs := filepath.Join(tree, ".build/roots/root.needs")
	text, err := os.ReadFile(needs)
	must(err)
	if string(text) != "coreutils\ndash\nlibc6\n" {
		t.Errorf("it needs %q", text)
	}
	must(os.WriteFile(needs, append(text, "removed\n"...), 0o644))
	check(once + " " + once)
	check(once + " " + once)
}
