package config

import (
	"fmt"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
)

// bondBroadcast sends every frame on every port (BOND_MODE_BROADCAST,
// include/uapi/linux/if_bonding.h).
const bondBroadcast = 3

// From include/uapi/linux/if_link.h: IFLA_MACVLAN_MODE, and two modes of it.
// In source mode frames from listed addresses go to the macvlan as well as on
// their way (drivers/net/macvlan.c, macvlan_forward_source).
const (
	macvlanMode   = 1
	macvlanAll    = 8
	macvlanSource = 16
)

// bridging tells of a switch that gives frames to more ports than it must.
func bridging(l link, links map[int32]link, add func(what, cause, detail string) *finding) {
	switch l.kind {
	case "bridge":
		if age, ok := l.data[unix.IFLA_BR_AGEING_TIME]; ok && age.Uint32() == 0 {
			add("ageing", "bridge does not learn: hub mode", "ageing time 0: every frame goes to every port")
		}
	case "bond":
		if l.data[unix.IFLA_BOND_MODE].Uint8() == bondBroadcast {
			add("mode", "bond copies every frame to all its ports", "mode broadcast")
		}
	case "macvlan", "macvtap":
		switch l.data[macvlanMode].Uint32() {
		case macvlanSource:
			f := add("source", "macvlan copies frames by who sends them", "mode source")
			f.Kind, f.In, f.Copy, f.Target = mirror.Rule, links[l.lower].name, l.name, l.name
		case macvlanAll:
			add("passthru", "macvlan takes every frame of its port", "mode passthru")
		}
	case "team":
		add("mode", "new team", "its mode cannot be read over rtnetlink")
	}
	if l.port == "bridge" {
		bridgePort(l, links[l.master].name, add)
	}
}

func bridgePort(l link, bridge string, add func(what, cause, detail string) *finding) {
	on := func(kind uint16, byDefault bool) bool {
		a, ok := l.slave[kind]
		if !ok {
			return byDefault
		}
		return a.Uint8() != 0
	}
	if !on(unix.IFLA_BRPORT_LEARNING, true) {
		f := add("learning", "bridge port does not learn", "on "+bridge+": what is sent to addresses behind it goes to every port")
		// Behind a VXLAN device addresses are mostly told, not learned (RFC 8365).
		f.Harmless = l.kind == "vxlan"
	}
	if on(unix.IFLA_BRPORT_MODE, false) {
		add("hairpin", "bridge port sends back where it came from", "hairpin on "+bridge)
	}
	if to, ok := l.slave[unix.IFLA_BRPORT_BACKUP_PORT]; ok {
		add("backup", "bridge port with a backup port", fmt.Sprintf("device %d takes its frames when it is down", to.Uint32())).device = int32(to.Uint32())
	}
	if l.kind == "veth" && l.peer {
		add("bridged", "veth into another namespace on a bridge", fmt.Sprintf("%s is a port of %s", l.name, bridge)).Harmless = !on(unix.IFLA_BRPORT_UNICAST_FLOOD, true)
	}
}
