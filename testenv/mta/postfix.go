package mta

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/portreeve/portreeve/testenv"
)

// postfixMain is main.cf; %[1]s is the server's directory.
//
// The connection's port is logged, so that forged ports can be seen. Mail for
// example.org goes to one Maildir; mail for others is refused.
const postfixMain = `compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = %[1]s/log
maillog_file_prefixes = %[1]s
myhostname = origin.example.org
mydestination =
mynetworks = 127.0.0.0/8 [::1]/128
inet_interfaces = all
inet_protocols = all
disable_dns_lookups = yes
smtpd_peername_lookup = no
smtpd_client_port_logging = yes
smtpd_relay_restrictions = reject_unauth_destination
smtpd_tls_security_level = none
alias_maps =
local_recipient_maps =
virtual_mailbox_domains = example.org
virtual_mailbox_maps = static:inbox/
virtual_mailbox_base = %[1]s/mail
virtual_uid_maps = static:2101
virtual_gid_maps = static:2101
notify_classes =
%[2]s`

// postfixMaster is master.cf: no service in a chroot, no local submission.
const postfixMaster = `smtp      inet  n - n - -    smtpd
cleanup   unix  n - n - 0    cleanup
qmgr      unix  n - n 300 1  qmgr
rewrite   unix  - - n - -    trivial-rewrite
bounce    unix  - - n - 0    bounce
defer     unix  - - n - 0    bounce
trace     unix  - - n - 0    bounce
proxymap  unix  - - n - -    proxymap
error     unix  - - n - -    error
retry     unix  - - n - -    error
discard   unix  - - n - -    discard
virtual   unix  - n n - -    virtual
anvil     unix  - - n - 1    anvil
postlog   unix-dgram n - n - 1 postlogd
`

// StartPostfix runs Postfix on port 25 of every address of a node. dir is an
// directory of its own; settings are further lines of main.cf. It returns when the
// addresses greet.
func StartPostfix(ctx context.Context, n *testenv.Node, dir string, addresses []netip.Addr, settings ...string) (*Server, error) {
	config := filepath.Join(dir, "etc")
	for name, text := range map[string]string{
		"main.cf":   fmt.Sprintf(postfixMain, dir, strings.Join(settings, "\n")+"\n"),
		"master.cf": postfixMaster,
	} {
		if err := writeFile(filepath.Join(config, name), text); err != nil {
			return nil, fmt.Errorf("start postfix: %w", err)
		}
	}
	for _, name := range []string{"queue", "data", "mail"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return nil, fmt.Errorf("start postfix: %w", err)
		}
	}
	for _, name := range []string{"data", "mail"} {
		if err := os.Chown(filepath.Join(dir, name), postfixID, postfixID); err != nil {
			return nil, fmt.Errorf("start postfix: %w", err)
		}
	}
	s := &Server{Log: filepath.Join(dir, "log"), Mail: filepath.Join(dir, "mail", "inbox")}
	if err := s.start(ctx, n, "postfix", dir, at(addresses, 25), "postfix", "-c", config, "start-fg"); err != nil {
		return nil, fmt.Errorf("start postfix: %w", err)
	}
	return s, nil
}

// postfixID is the user and group that in-root gives to Postfix.
const postfixID = 2101

// writeFile writes a file and the directory that it is in.
func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// at adds a port to addresses.
func at(addresses []netip.Addr, port uint16) []netip.AddrPort {
	ports := make([]netip.AddrPort, len(addresses))
	for i, a := range addresses {
		ports[i] = netip.AddrPortFrom(a, port)
	}
	return ports
}
