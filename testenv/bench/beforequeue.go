package main

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
)

// beforeQueueConfig makes a Postfix that speaks SMTP with the client, applies its
// own checks, and hands the message on while it comes, without a queue. Of what
// others have made it does most nearly what portreeve does, looking included; but it
// does not forge the source, so the origin sees the gateway's address. It has a
// process for each session that is open, asks no name server, does not count
// anybody's sessions, and logs as it always does.
const beforeQueueConfig = `compatibility_level = 3.6
queue_directory = $config_directory/queue
data_directory = $config_directory/data
maillog_file = /dev/stdout
myhostname = gateway.example.org
mydestination =
mynetworks =
inet_interfaces = %[1]s
inet_protocols = ipv4
disable_dns_lookups = yes
smtpd_peername_lookup = no
smtpd_proxy_filter = inet:[%[3]s]:%[2]d
relay_domains = example.org
smtpd_relay_restrictions = reject_unauth_destination
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_message_rate_limit = 0
smtpd_client_recipient_rate_limit = 0
smtpd_client_new_tls_session_rate_limit = 0
smtpd_client_auth_rate_limit = 0
smtpd_tls_security_level = none
default_process_limit = 200
message_size_limit = 0
alias_maps =
local_recipient_maps =
notify_classes =
`

// beforeQueueServices are the programs of that Postfix, none of them in a chroot.
// None can queue mail: what is accepted was accepted by the origin.
const beforeQueueServices = `smtp    inet       n - n - - smtpd
rewrite unix       - - n - - trivial-rewrite
postlog unix-dgram n - n - 1 postlogd
`

// mostBeforeQueue is how many sessions it carries at once: half of its processes, so
// that none is ever waited for.
const mostBeforeQueue = 100

// startBeforeQueue starts a Postfix as a proxy before the origin's queue.
func startBeforeQueue(ctx context.Context, s *stage) (*serving, error) {
	if err := s.prepareBeforeQueue(); err != nil {
		return nil, err
	}
	server, err := s.serve(s.accounts.subject, "before-queue", s.unpacked(s.env.Gateway, "postfix", "postfix", "-c", s.env.Dir, "start-fg"))
	if err != nil {
		return nil, err
	}
	target := netip.AddrPortFrom(s.env.Gateway4, smtpPort)
	return &serving{target: target, pid: server.cmd.Process.Pid, stop: server.kill},
		s.awaitGreeting(ctx, server, s.env.Client, target)
}

// prepareBeforeQueue makes the directories and files that it needs.
func (s *stage) prepareBeforeQueue() error {
	queue, data := filepath.Join(s.env.Dir, "queue"), filepath.Join(s.env.Dir, "data")
	err := errors.Join(os.Mkdir(queue, 0o755), os.Mkdir(data, 0o700), os.Chown(data, postfixUser, postfixUser))
	if err != nil {
		return err
	}
	for file, format := range map[string]string{"main.cf": beforeQueueConfig, "master.cf": beforeQueueServices} {
		if _, err := s.writeConfig(file, format, 0); err != nil {
			return err
		}
	}
	return nil
}

// postfixUser is the user and the group of Postfix, see scripts/in-root.
const postfixUser = 2101
