package doctor

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Networkd is what systemd-networkd is told to do with rules and routes that
// others made.
type Networkd struct {
	Running     bool
	DropsRules  bool // ManageForeignRoutingPolicyRules, default yes; spares those of protocol kernel
	DropsRoutes bool // ManageForeignRoutes, default yes
}

// networkdRuntime exists while systemd-networkd runs.
const networkdRuntime = "/run/systemd/netif"

// readNetworkd reads networkd.conf and its drop-ins; later files go before
// earlier ones, by file name (systemd.syntax).
func readNetworkd() Networkd {
	n := Networkd{DropsRules: true, DropsRoutes: true}
	if _, err := os.Stat(networkdRuntime); err != nil {
		return n
	}
	n.Running = true
	for _, path := range networkdFiles() {
		if f, err := os.Open(path); err == nil {
			n.read(f)
			f.Close()
		}
	}
	return n
}

func networkdFiles() []string {
	var dropIns []string
	for _, dir := range []string{"/usr/lib/systemd", "/run/systemd", "/etc/systemd"} {
		found, _ := filepath.Glob(filepath.Join(dir, "networkd.conf.d", "*.conf"))
		dropIns = append(dropIns, found...)
	}
	slices.SortStableFunc(dropIns, func(a, b string) int { return strings.Compare(filepath.Base(a), filepath.Base(b)) })
	return append([]string{"/usr/lib/systemd/networkd.conf", "/etc/systemd/networkd.conf"}, dropIns...)
}

// read takes the two settings from a file of networkd's.
func (n *Networkd) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, value, _ := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		on := !slices.Contains([]string{"no", "false", "off", "0"}, strings.ToLower(strings.TrimSpace(value)))
		switch strings.TrimSpace(name) {
		case "ManageForeignRoutingPolicyRules":
			n.DropsRules = on
		case "ManageForeignRoutes":
			n.DropsRoutes = on
		}
	}
}

// networkd tells what its next restart would do.
func (e *exam) networkd() {
	n := e.m.Networkd
	if !n.Running {
		return
	}
	if n.DropsRules {
		e.info("networkd-rules", "systemd-networkd", "it removes foreign policy rules when it starts; those of portreeve bear the protocol kernel, which it spares")
	}
	if n.DropsRoutes {
		e.warn("networkd-routes", "systemd-networkd", "it may remove foreign routes when it starts, portreeve's among them if it manages lo",
			`mkdir -p /etc/systemd/networkd.conf.d && printf '[Network]\nManageForeignRoutes=no\n' >/etc/systemd/networkd.conf.d/portreeve.conf # read when networkd starts; portreeve attach puts a lost route back`)
	}
}
