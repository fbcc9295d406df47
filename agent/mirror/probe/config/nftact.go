package config

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror/probe/netlink"
)

// Attributes of expressions that copy (include/uapi/linux/netfilter/nf_tables.h,
// nf_tables_compat.h).
const (
	dupAddress = 1 // NFTA_DUP_SREG_ADDR
	dupDevice  = 2 // NFTA_DUP_SREG_DEV
	fwdDevice  = 1 // NFTA_FWD_SREG_DEV
	fwdAddress = 2 // NFTA_FWD_SREG_ADDR
	targetName = 1 // NFTA_TARGET_NAME
	targetInfo = 3 // NFTA_TARGET_INFO
	natType    = 1 // NFTA_NAT_TYPE
)

// act notes an expression that copies or diverts, and returns it as text.
func (r *registers) act(name string, a map[uint16]netlink.Attr) string {
	var act nftAct
	text := name
	switch name {
	case "dup":
		act = r.send("nft dup", a[dupAddress], a[dupDevice])
		text = "dup to " + r.place(act, a[dupAddress], a[dupDevice])
	case "fwd":
		act = r.send("nft fwd", a[fwdAddress], a[fwdDevice])
		text = "fwd to " + r.place(act, a[fwdAddress], a[fwdDevice])
	case "log":
		group, copies := a[unix.NFTA_LOG_GROUP]
		if !copies {
			return "log"
		}
		act.cause, text = "nft log", fmt.Sprintf("log to group %d", group.BigUint16())
	case "queue":
		act.cause, text = "nft queue", fmt.Sprintf("queue to %d", a[unix.NFTA_QUEUE_NUM].BigUint16())
	case "nat":
		act = nftAct{cause: "nft snat", harmless: true}
		if a[natType].BigUint32() == 1 {
			act.cause = "nft dnat"
		}
	case "tproxy", "redir", "masq", "synproxy":
		act = nftAct{cause: "nft " + name, harmless: true}
	case "target":
		act, text = r.extension(a[targetName].String(), a[targetInfo].Data)
	}
	if act.cause != "" {
		r.rule.acts = append(r.rule.acts, act)
	}
	return text
}

// send is an act that gives the packet to an address or a device in registers.
func (r *registers) send(cause string, address, device netlink.Attr) nftAct {
	act := nftAct{cause: cause}
	if v := r.at(device).data; len(device.Data) > 0 && len(v) == 4 {
		act.device = int32(binary.NativeEndian.Uint32(v))
	}
	if len(address.Data) > 0 {
		act.to, _ = netip.AddrFromSlice(r.at(address).data)
	}
	return act
}

// place says to where, for people.
func (r *registers) place(act nftAct, address, device netlink.Attr) string {
	from := r.at(device).from
	if from == "" {
		from = r.at(address).from
	}
	switch {
	case act.to.IsValid() && act.device != 0:
		return fmt.Sprintf("%s by device %d", act.to, act.device)
	case act.to.IsValid():
		return act.to.String()
	case act.device != 0:
		return fmt.Sprintf("device %d", act.device)
	case from != "":
		return "what map " + from + " says"
	}
	return "what the packet says"
}

// extension is an iptables target that nftables runs (iptables-nft).
func (r *registers) extension(name string, info []byte) (nftAct, string) {
	known, copies := targets[name]
	if !copies {
		return nftAct{}, name
	}
	act := nftAct{cause: known.words, harmless: known.harmless}
	act.to = teeGateway(name, info, r.rule.family == unix.NFPROTO_IPV6)
	text := name
	if act.to.IsValid() {
		text += " to " + act.to.String()
	}
	return act, text
}

// teeGateway reads struct xt_tee_tginfo (include/uapi/linux/netfilter/xt_TEE.h),
// which begins with a union of 16 bytes; zero: another target, or too short.
func teeGateway(name string, info []byte, v6 bool) netip.Addr {
	if name != "TEE" || len(info) < 16 {
		return netip.Addr{}
	}
	if v6 {
		return netip.AddrFrom16([16]byte(info[:16]))
	}
	return netip.AddrFrom4([4]byte(info[:4]))
}
