package chaos

import "fmt"

// routeOperations are what others do to rules and routes.
var routeOperations = []operation{
	{name: "ip rule flush", weight: 5, class: routing, do: func(s *stage) (string, func() error, error) {
		return "", nil, s.does(`ip rule flush
ip rule add pref 32766 lookup main
ip rule add pref 32767 lookup default
ip -6 rule flush
ip -6 rule add pref 32766 lookup main
`)
	}},
	{name: "a rule of portreeve's deleted", weight: 4, class: routing, do: func(s *stage) (string, func() error, error) {
		family := pick(s, "-4", "-6")
		return family, nil, s.attempts(fmt.Sprintf("ip %s rule del pref %d", family, s.priority()))
	}},
	{name: "ip route flush of a table", weight: 5, class: routing, do: func(s *stage) (string, func() error, error) {
		words := fmt.Sprintf("ip %s route flush table %d", pick(s, "-4", "-6"), pick(s, s.tables()...))
		return words, nil, s.attempts(words)
	}},
	{name: "a rule before ours", weight: 3, class: routing, stops: true, do: func(s *stage) (string, func() error, error) {
		words := "pref 7 iif " + pick(s, "ext0", "dmz0") + " lookup main"
		return words, s.undoes("ip rule del " + words + "\nip -6 rule del " + words + "\n"), s.does("ip rule add " + words + "\nip -6 rule add " + words + "\n")
	}},
	{name: "another route in a table of portreeve's", weight: 2, class: routing, do: func(s *stage) (string, func() error, error) {
		words := fmt.Sprintf("198.51.100.0/24 dev dmz0 table %d", pick(s, s.tables()...))
		return words, s.attempted("ip route del " + words), s.attempts("ip route add " + words)
	}},
}

func (s *stage) priority() int {
	if s.manager.wanted().Tables {
		return 30
	}
	return 25
}

func (s *stage) tables() []int {
	if s.manager.wanted().Tables {
		return []int{3030, 3035}
	}
	return []int{2525, 2526}
}
