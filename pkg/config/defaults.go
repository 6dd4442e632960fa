package config

import (
	"time"

	"github.com/portreeve/portreeve/pkg/protocol"
)

// Default returns a configuration without interfaces and services, with every
// other value as it is when the file does not mention it. reference.yaml gives
// the reason for each. A service's own defaults are the zero values of Forge
// and Fail: forge always, any port, fail closed; its SMTP is that of the whole.
func Default() Config {
	return Config{
		SMTP: protocol.Default(),
		Kernel: Kernel{
			BPFFS:      "/sys/fs/bpf",
			RunDir:     "/run/portreeve",
			ClientMark: 0x01000000,
			OriginMark: 0x02000000,
			LoopMark:   0x04000000,
			Table:      2525,
			LoopTable:  2526,
			Priority:   25,
			Heartbeat:  3 * time.Second,
		},
		Timeouts: Timeouts{
			Connect:   30 * time.Second,
			Greet:     60 * time.Second,
			Handshake: 60 * time.Second,
			Command:   5 * time.Minute,
			Reply:     5 * time.Minute,
			Data:      2 * time.Minute,
			Block:     3 * time.Minute,
			End:       10 * time.Minute,
			Proxy:     5 * time.Second,
			Drain:     30 * time.Second,
		},
		Limits: Limits{Sessions: 10000},
		Log:    Log{Format: "json", SilentVisitors: true},
	}
}
