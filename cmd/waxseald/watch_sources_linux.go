package main

import (
	"fmt"
	"os"
	"strings"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe"
	"waxseal/agent/mirror/probe/config"
	"waxseal/agent/mirror/probe/inventory"
	"waxseal/agent/watch"
	"waxseal/measure/authorised"
)

// judgeOf returns a judge of the ports, who knows what is authorised.
func judgeOf(f watchFlags) (*mirror.Judge, error) {
	c := mirror.Config{Ports: f.ports}
	if f.authorised != "" {
		set, err := readAuthorised(f)
		if err != nil {
			return nil, err
		}
		c.Authorised = set
	}
	return mirror.NewJudge(c), nil
}

func readAuthorised(f watchFlags) (authorised.Set, error) {
	trust, err := os.ReadFile(f.approvers)
	if err != nil {
		return authorised.Set{}, err
	}
	approvers, err := authorised.ParseApprovers(trust)
	if err != nil {
		return authorised.Set{}, fmt.Errorf("%s: %w", f.approvers, err)
	}
	file, err := os.ReadFile(f.authorised)
	if err != nil {
		return authorised.Set{}, err
	}
	set, err := authorised.Open(file, approvers, f.serial)
	if err != nil {
		return authorised.Set{}, fmt.Errorf("%s: %w", f.authorised, err)
	}
	return set, nil
}

// watchSources are all sources of a router. The probe comes first: the others
// must not take its programs for somebody's.
func watchSources(f watchFlags) []watch.Opening {
	var packets *probe.Probe
	ports := f.ports
	ours := func(program uint32) bool { return packets != nil && packets.Owns(program) }
	return []watch.Opening{
		{Name: "packets", Open: func() (_ watch.Source, err error) {
			packets, err = probe.Open(probe.Config{Ports: f.ports, Mode: probe.Mode(f.mode), Sample: f.sampling, PinDir: f.pins})
			if err == nil && len(ports) == 0 {
				ports = hooked(packets.Capabilities())
			}
			return packets, err
		}},
		{Name: "configuration", Open: func() (watch.Source, error) {
			return config.Open(config.Config{Ports: ports, Ours: ours})
		}},
		{Name: "inventory", Open: func() (watch.Source, error) {
			return inventory.Open(inventory.Config{Ours: ours})
		}},
	}
}

// hooked returns the names of the ports of which a list speaks.
func hooked(list []mirror.Capability) []string {
	var ports []string
	for _, c := range list {
		if name, ok := strings.CutPrefix(c.Name, "hooks/"); ok {
			ports = append(ports, name)
		}
	}
	return ports
}
