package chaos

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// processOperations kill and stop processes.
var processOperations = []operation{
	{name: "kill -9 of the inspector", weight: 8, class: holders, do: func(s *stage) (string, func() error, error) {
		return s.toAll(unix.SIGKILL, func(p proc) bool { return p.runs() })
	}},
	{name: "SIGTERM to the inspector", weight: 3, class: holders, do: func(s *stage) (string, func() error, error) {
		return s.toAll(unix.SIGTERM, func(p proc) bool { return p.runs() })
	}},
	{name: "kill -9 of the watcher", weight: 5, class: holders, do: func(s *stage) (string, func() error, error) {
		active, _, err := s.watchers()
		return s.signal(unix.SIGKILL, active, err)
	}},
	{name: "kill -9 of the watcher that stands by", weight: 3, class: processes, do: func(s *stage) (string, func() error, error) {
		_, standby, err := s.watchers()
		return s.signal(unix.SIGKILL, standby, err)
	}},
	{name: "kill -9 of the key holder", weight: 5, class: holders, fits: func(s *stage) bool {
		i := s.manager.current()
		return i != nil && i.file.TLS
	}, do: func(s *stage) (string, func() error, error) {
		return s.toAll(unix.SIGKILL, func(p proc) bool { return p.name == keysProcess })
	}},
	{name: "kill -9 of the process that attaches for run", weight: 2, class: processes, do: func(s *stage) (string, func() error, error) {
		return s.toAll(unix.SIGKILL, func(p proc) bool { return p.name == attacherProcess })
	}},
	{name: "kill -9 of everything", weight: 3, class: holders, do: func(s *stage) (string, func() error, error) {
		s.beside = false
		return s.toAll(unix.SIGKILL, func(proc) bool { return true })
	}},
	{name: "STOP of the inspector", weight: 5, class: processes, stops: true, do: func(s *stage) (string, func() error, error) {
		all, err := s.processes()
		return s.paused(all, err, func(p proc) bool { return p.runs() })
	}},
	{name: "STOP of the watcher", weight: 4, class: processes, do: func(s *stage) (string, func() error, error) {
		active, _, err := s.watchers()
		return s.paused(active, err, func(proc) bool { return true })
	}},
	{name: "STOP of the watcher that stands by", weight: 2, class: processes, do: func(s *stage) (string, func() error, error) {
		_, standby, err := s.watchers()
		return s.paused(standby, err, func(proc) bool { return true })
	}},
	{name: "STOP of everything", weight: 2, class: processes, stops: true, do: func(s *stage) (string, func() error, error) {
		all, err := s.processes()
		return s.paused(all, err, func(proc) bool { return true })
	}},
}

// toAll sends a signal to the processes that are meant.
func (s *stage) toAll(number unix.Signal, meant func(proc) bool) (string, func() error, error) {
	all, err := s.processes()
	var list []proc
	for _, p := range all {
		if meant(p) {
			list = append(list, p)
		}
	}
	return s.signal(number, list, err)
}

func (s *stage) signal(number unix.Signal, list []proc, err error) (string, func() error, error) {
	for _, p := range list {
		err = errors.Join(err, p.signal(number))
	}
	return fmt.Sprint(list), nil, err
}

// paused stops processes, and lets them go on at the end.
func (s *stage) paused(all []proc, err error, meant func(proc) bool) (string, func() error, error) {
	var list []proc
	for _, p := range all {
		if meant(p) {
			list = append(list, p)
			err = errors.Join(err, p.signal(unix.SIGSTOP))
		}
	}
	return fmt.Sprint(list), func() error {
		_, _, err := s.signal(unix.SIGCONT, list, nil)
		return err
	}, err
}

// settlePatience is for older inspectors to end, and for watchers to be two.
const settlePatience = 20 * time.Second

// settled sees that there is one inspector, and a watcher with another that stands by.
func (s *stage) settled() {
	var why string
	for limit := time.Now().Add(settlePatience); time.Now().Before(limit); time.Sleep(100 * time.Millisecond) {
		var err error
		if why, err = s.unsettled(); err != nil {
			s.ledger.Fail("look at processes: %v", err)
			return
		}
		if why == "" {
			return
		}
	}
	s.ledger.Fail("for %s: %s", settlePatience, why)
}

func (s *stage) unsettled() (string, error) {
	all, err := s.processes()
	if err != nil {
		return "", err
	}
	mains := 0
	for _, p := range all {
		if p.runs() {
			mains++
		}
	}
	if mains != 1 {
		return fmt.Sprintf("there are %d inspectors: %v", mains, all), nil
	}
	active, standby, err := s.watchers()
	if len(active) == 0 || len(standby) < len(active) {
		return fmt.Sprintf("watchers that work are %v, and those that stand by %v", active, standby), err
	}
	return "", err
}
