package testenv

import "testing"

// TestComplaint has what servers said that could not serve, and the line that tells why.
func TestComplaint(t *testing.T) {
	for _, test := range []struct{ name, said, want string }{
		{"postfix", `Nov 30 04:46:24 origin postfix/postfix-script[133]: warning: not owned by postfix: /tmp/origin/data/.
Nov 30 04:46:24 origin postfix/postfix-script[148]: starting the Postfix mail system
Nov 30 04:46:24 origin postfix/master[1]: fatal: open lock file /tmp/origin/data/master.lock: cannot create file exclusively: Permission denied
`, "Nov 30 04:46:24 origin postfix/master[1]: fatal: open lock file /tmp/origin/data/master.lock: cannot create file exclusively: Permission denied"},
		{"exim", "2026-11-30 04:46:24 Exim configuration error in line 7 of /etc/exim4/exim4.conf:\n  main option \"nonsense\" unknown\n",
			`2026-11-30 04:46:24 Exim configuration error in line 7 of /etc/exim4/exim4.conf: main option "nonsense" unknown`},
		{"exim's log", `2026-11-30 06:06:13 Cannot open main log file "/tmp/origin/log/main": Permission denied: euid=0 egid=2104
2026-11-30 06:06:13 Warning: No server certificate defined; will use a selfsigned one.
exim: could not open panic log - aborting: see message(s) above
`, `2026-11-30 06:06:13 Cannot open main log file "/tmp/origin/log/main": Permission denied: euid=0 egid=2104`},
		{"opensmtpd", "info: OpenSMTPD 7.6.0-portable starting\ndispatcher: tls_config_set_ca_file: No such file or directory\nsmtpd: process queue socket closed\n",
			"dispatcher: tls_config_set_ca_file: No such file or directory"},
		{"haproxy", `[NOTICE]   (1) : haproxy version is 2.6.12-1+deb12u3
[NOTICE]   (1) : path to executable is /usr/sbin/haproxy
[ALERT]    (1) : config : parsing [x.cfg:1] : unknown keyword 'nonsense' out of section.
[ALERT]    (1) : config : Fatal errors found in configuration.
`, "[ALERT]    (1) : config : parsing [x.cfg:1] : unknown keyword 'nonsense' out of section."},
		{"no root", "in-root: /src/.build/roots/postfix is not there: run scripts/unpack\n", "in-root: /src/.build/roots/postfix is not there: run scripts/unpack"},
		{"no complaint", "starting\n\nstarted\n", "started"},
		{"silence", "\n", "nothing"},
	} {
		if got := Complaint(test.said); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}
