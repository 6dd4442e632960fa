package steer

import (
	"fmt"
	"time"

	"github.com/portreeve/portreeve/pkg/plan"
)

// settings reads the one entry of the map.
func (s *pinSet) settings() (bpfSettings, error) {
	var v bpfSettings
	if err := s.maps[bpfMapSettings].Lookup(uint32(0), &v); err != nil {
		return v, fmt.Errorf("read settings: %w", err)
	}
	return v, nil
}

func haveSettings(s *pinSet) ([]plan.Item, error) {
	if s.maps[bpfMapSettings] == nil {
		return nil, nil
	}
	v, err := s.settings()
	if err != nil {
		return nil, err
	}
	var items []plan.Item
	if i := v.item(); i != (plan.Settings{}) {
		items = append(items, i)
	}
	if v.LoopMark != 0 {
		items = append(items, plan.Loop{Mark: v.LoopMark})
	}
	return items, nil
}

// item is what an operator may change of the settings.
func (v bpfSettings) item() plan.Settings {
	return plan.Settings{ClientMark: v.ClientMark, OriginMark: v.OriginMark, Heartbeat: time.Duration(v.HeartbeatNs)}
}

// putClosed writes how many services fail closed.
func (s *pinSet) putClosed(n uint32) error {
	v, err := s.settings()
	if err != nil || v.Closed == n {
		return err
	}
	v.Closed = n
	if err := s.maps[bpfMapSettings].Put(uint32(0), v); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// putLoop writes the mark of the loop; 0 switches it off.
func (s *pinSet) putLoop(i plan.Loop) error {
	v, err := s.settings()
	if err != nil {
		return err
	}
	v.LoopMark = i.Mark
	if err := s.maps[bpfMapSettings].Put(uint32(0), v); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// putSettings writes what an operator may change; the rest stays.
func (s *pinSet) putSettings(i plan.Settings) error {
	v, err := s.settings()
	if err != nil {
		return err
	}
	v.ClientMark, v.OriginMark, v.HeartbeatNs = i.ClientMark, i.OriginMark, uint64(i.Heartbeat)
	if err := s.maps[bpfMapSettings].Put(uint32(0), v); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}
