package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// haproxyConfig is what a competent operator would write: nothing logged, and the
// client's address towards the origin.
const haproxyConfig = `global
	nbthread %[5]d
	maxconn 8000
defaults
	mode tcp
	timeout connect 30s
	timeout client 5m
	timeout server 5m
listen mx
	bind %[1]s:%[2]d transparent
	source 0.0.0.0 usesrc clientip
	server origin %[3]s:%[2]d
`

// nginxConfig is the same for nginx. Its workers keep the capability that
// transparent needs, whatever user they run as.
const nginxConfig = `load_module /usr/lib/nginx/modules/ngx_stream_module.so;
worker_processes %[5]d;
user nobody nogroup;
error_log stderr crit;
events { worker_connections 12288; }
stream {
	access_log off;
	server {
		listen %[1]s:%[2]d backlog=4096;
		proxy_pass %[3]s:%[2]d;
		proxy_bind $remote_addr transparent;
		proxy_connect_timeout 30s;
		proxy_timeout 5m;
	}
}
`

// startHAProxy returns a subject: HAProxy with so many threads.
func startHAProxy(threads int) subject {
	return func(ctx context.Context, s *stage) (*serving, error) {
		format := haproxyConfig
		if s.secure {
			format = strings.NewReplacer(" transparent\n", " transparent ssl crt %[4]s.both\n", "server origin %[3]s:%[2]d", "server origin %[3]s:%[2]d ssl verify none").Replace(format)
		}
		file, err := s.writeConfig("haproxy.cfg", format, threads)
		if err != nil {
			return nil, err
		}
		return s.startProxy(ctx, "haproxy", s.unpacked(s.env.Gateway, "haproxy", "haproxy", "-db", "-f", file))
	}
}

// startNginx returns a subject: nginx with so many workers.
func startNginx(workers int) subject {
	return func(ctx context.Context, s *stage) (*serving, error) {
		format := nginxConfig
		if s.secure {
			format = strings.NewReplacer("backlog=4096;", "backlog=4096 ssl;\n\t\tssl_certificate %[4]s.pem;\n\t\tssl_certificate_key %[4]s.key;\n\t\tproxy_ssl on;").Replace(format)
		}
		file, err := s.writeConfig("nginx.conf", format, workers)
		if err != nil {
			return nil, err
		}
		return s.startProxy(ctx, "nginx", s.unpacked(s.env.Gateway, "nginx", "nginx", "-c", file, "-g", "daemon off;"))
	}
}

// writeConfig writes a subject's configuration file. workers is for those that have a
// number of them.
func (s *stage) writeConfig(name, format string, workers int) (file string, err error) {
	file = filepath.Join(s.env.Dir, name)
	pair, err := s.pair()
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf(format+"%[6]s", s.env.Gateway4, smtpPort, s.env.Origin4, pair, workers, "")
	return file, os.WriteFile(file, []byte(text), 0o644)
}

// startProxy starts a proxy that listens on the gateway's address.
func (s *stage) startProxy(ctx context.Context, name string, cmd *exec.Cmd) (*serving, error) {
	for line := range strings.Lines(claimReplies) {
		words := strings.Fields(line)
		if _, err := s.env.Gateway.Run(ctx, words[0], words[1:]...); err != nil {
			return nil, err
		}
	}
	proxy, err := s.serve(s.accounts.subject, name, cmd)
	if err != nil {
		return nil, err
	}
	target := netip.AddrPortFrom(s.env.Gateway4, smtpPort)
	return &serving{target: target, pid: proxy.cmd.Process.Pid, stop: proxy.kill},
		s.awaitGreeting(ctx, proxy, s.env.Client, target)
}

// claimReplies brings the origin's answers to forged addresses to the proxy's
// sockets, by the recipe that the manuals of HAProxy and nginx give, with nothing
// more in it than this network needs.
const claimReplies = `iptables -w -t mangle -A PREROUTING -i dmz0 -p tcp -m socket --transparent -j MARK --set-mark 1
ip rule add fwmark 1 lookup 100
ip route add local default dev lo table 100`
