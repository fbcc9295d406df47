package config

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
)

// readDevices lists what devices do that matters.
func (s *space) readDevices(ctx context.Context) ([]finding, error) {
	links, err := s.readLinks(ctx)
	if err != nil {
		return nil, err
	}
	s.links.replace(links)
	var all []finding
	for _, l := range links {
		all = append(all, s.device(l, links)...)
	}
	return all, nil
}

// device lists what is worth knowing about one device.
func (s *space) device(l link, links map[int32]link) []finding {
	var all []finding
	add := func(what, cause, detail string) *finding {
		all = append(all, finding{Observation: mirror.Observation{
			Kind: mirror.Device, Detector: "rtnetlink", Subject: "link/" + l.name + "/" + what, Cause: cause, In: l.name, Detail: detail,
		}})
		return &all[len(all)-1]
	}
	if cause, carries := carriers[l.kind]; carries && !l.automatic() {
		f := add("kind", cause.words, l.text())
		f.Harmless, f.to, f.held = cause.harmless, l.remote(), l.index
		if f.to.IsValid() {
			f.Target = f.to.String()
		} else if l.stacked() {
			f.device = l.lower
		}
	}
	s.promiscuous(l, links, add)
	for _, id := range l.xdp {
		if s.config.Ours == nil || !s.config.Ours(id) {
			add(fmt.Sprintf("xdp/%d", id), "XDP program", s.programText(id))
		}
	}
	bridging(l, links, add)
	return all
}

// programText says what is known of a BPF program.
func (s *space) programText(id uint32) string {
	text := fmt.Sprintf("BPF program %d", id)
	if s.config.Program != nil {
		if does, _ := s.config.Program(id); does != "" {
			text += ": " + does
		}
	}
	return text
}

// promiscuous tells of a device that takes frames that are not for it, beyond
// what its own uppers need.
func (s *space) promiscuous(l link, links map[int32]link, add func(what, cause, detail string) *finding) {
	asked := l.flags&unix.IFF_PROMISC != 0
	if !asked && l.promiscuous == 0 {
		s.multicast(l, add)
		return
	}
	f := add("promiscuous", "promiscuous mode", fmt.Sprintf("wanted %d times", max(l.promiscuous, 1)))
	if !asked && l.promiscuous <= lawful(l, links) {
		f.Harmless = true
		f.Detail += ", by the devices on top of it"
	}
}

// lawful is how many times the devices above want a device to be promiscuous:
// a bridge, team or bond once; macvlan and VLAN devices with addresses of their
// own once, all together (net/core/dev.c, __dev_set_rx_mode).
func lawful(l link, links map[int32]link) (n uint32) {
	if l.master != 0 {
		n++
	}
	for _, upper := range links {
		if upper.lower == l.index && !upper.peer && upper.kind != "veth" && upper.index != l.index {
			return n + 1
		}
	}
	return n
}

// multicast: all groups go up the stack, as multicast routing wants it. No
// transit packet does.
func (s *space) multicast(l link, add func(what, cause, detail string) *finding) {
	if l.flags&unix.IFF_ALLMULTI != 0 || l.allmulti != 0 {
		add("allmulti", "all multicast", "").Harmless = true
	}
}

// carrier is a kind of device that takes traffic elsewhere.
type carrier struct {
	words    string
	harmless bool // it takes nothing by itself that is not for it
}

// carriers are the kinds of rtnetlink devices (IFLA_INFO_KIND) that copy or
// carry away. Bridges and bonds are judged by how they are set.
var carriers = map[string]carrier{
	"gre": {words: "new tunnel gre"}, "gretap": {words: "new tunnel gretap"}, "erspan": {words: "new tunnel erspan"},
	"ip6gre": {words: "new tunnel ip6gre"}, "ip6gretap": {words: "new tunnel ip6gretap"}, "ip6erspan": {words: "new tunnel ip6erspan"},
	"vxlan": {words: "new tunnel vxlan"}, "geneve": {words: "new tunnel geneve"}, "bareudp": {words: "new tunnel bareudp"},
	"ipip": {words: "new tunnel ipip"}, "sit": {words: "new tunnel sit"}, "ip6tnl": {words: "new tunnel ip6tnl"},
	"vti": {words: "new tunnel vti"}, "vti6": {words: "new tunnel vti6"}, "xfrm": {words: "new tunnel xfrm"},
	"wireguard": {words: "new tunnel wireguard"}, "l2tpeth": {words: "new tunnel l2tp"}, "gtp": {words: "new tunnel gtp"},
	"amt": {words: "new tunnel amt"}, "ovpn": {words: "new tunnel ovpn"}, "ppp": {words: "new tunnel ppp"}, "batadv": {words: "new tunnel batadv"},
	"tun": {words: "new tun or tap device"}, "macvtap": {words: "new macvtap"}, "ipvtap": {words: "new ipvtap"},
	"nlmon": {words: "netlink monitor nlmon", harmless: true}, "vsockmon": {words: "vsock monitor", harmless: true},
	"ifb": {words: "new ifb", harmless: true}, "vlan": {words: "new vlan", harmless: true}, "vrf": {words: "new vrf", harmless: true},
	"macvlan": {words: "new macvlan", harmless: true}, "ipvlan": {words: "new ipvlan", harmless: true}, "macsec": {words: "new macsec", harmless: true},
	"dummy": {words: "new dummy", harmless: true}, "netkit": {words: "new netkit", harmless: true}, "vcan": {words: "new vcan", harmless: true},
	"hsr": {words: "hsr copies every frame to two ports"}, "openvswitch": {words: "Open vSwitch port: its mirrors cannot be read here"},
}

// automatic tells whether the kernel made the device by itself when it loaded
// the module, and nobody has put it to use since: it is down, or has nowhere
// to send.
func (l link) automatic() bool {
	switch l.name {
	case "gre0", "gretap0", "erspan0", "ip6gre0", "ip6gretap0", "tunl0", "sit0", "ip6tnl0", "ip_vti0", "ip6_vti0":
		return l.flags&unix.IFF_UP == 0 && !l.remote().IsValid() && l.master == 0
	case "ifb0", "ifb1":
		return l.flags&unix.IFF_UP == 0
	}
	return false
}

// remotes are the attributes that hold the far end of a tunnel, by kind
// (include/uapi/linux/if_link.h, if_tunnel.h): IFLA_VXLAN_GROUP and _GROUP6,
// IFLA_GENEVE_REMOTE and _REMOTE6, IFLA_GRE_REMOTE, IFLA_IPTUN_REMOTE,
// IFLA_VTI_REMOTE.
var remotes = map[string][]uint16{
	"vxlan": {unix.IFLA_VXLAN_GROUP, unix.IFLA_VXLAN_GROUP6}, "geneve": {unix.IFLA_GENEVE_REMOTE, unix.IFLA_GENEVE_REMOTE6},
	"gre": {7}, "gretap": {7}, "erspan": {7}, "ip6gre": {7}, "ip6gretap": {7}, "ip6erspan": {7},
	"ipip": {3}, "sit": {3}, "ip6tnl": {3}, "vti": {5}, "vti6": {5},
}

// remote is where a tunnel sends what it is given; zero: nowhere, or that
// depends on the packet.
func (l link) remote() netip.Addr {
	for _, kind := range remotes[l.kind] {
		if to, ok := netip.AddrFromSlice(l.data[kind].Data); ok && !to.IsUnspecified() {
			return to
		}
	}
	return netip.Addr{}
}

// text is a device for people.
func (l link) text() string {
	words := []string{l.kind}
	if to := l.remote(); to.IsValid() {
		words = append(words, "remote "+to.String())
	}
	if id, ok := l.identifier(); ok {
		words = append(words, fmt.Sprintf("id %d", id))
	}
	switch {
	case l.peer:
		words = append(words, "peer in another namespace")
	case l.kind == "tun":
		words = append(words, tunText(l)...)
	}
	return strings.Join(words, " ")
}

func (l link) identifier() (uint32, bool) {
	switch l.kind {
	case "vxlan":
		a, ok := l.data[unix.IFLA_VXLAN_ID]
		return a.Uint32(), ok
	case "geneve":
		a, ok := l.data[unix.IFLA_GENEVE_ID]
		return a.Uint32(), ok
	}
	return 0, false
}

// tunText names the form of a tun device (IFF_TUN 1, IFF_TAP 2 in
// include/uapi/linux/if_tun.h) and the user that may open it.
func tunText(l link) []string {
	words := []string{"layer 3"}
	if l.data[unix.IFLA_TUN_TYPE].Uint8() == 2 {
		words[0] = "layer 2"
	}
	if owner, ok := l.data[unix.IFLA_TUN_OWNER]; ok {
		words = append(words, fmt.Sprintf("of user %d", owner.Uint32()))
	}
	return words
}
