package config

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// errTable says that bytes are no table of iptables.
var errTable = errors.New("malformed iptables table")

// layout is where things are in struct ipt_entry and ip6t_entry
// (include/uapi/linux/netfilter_ipv4/ip_tables.h, netfilter_ipv6/ip6_tables.h).
type layout struct {
	family   string
	inName   int // char iniface[IFNAMSIZ], outiface after it, and their masks
	targetAt int // __u16 target_offset, next_offset after it
	counters int // struct xt_counters, 16 bytes; they change with each packet
	size     int
	v6       bool
}

var (
	layout4 = layout{family: "ip", inName: 16, targetAt: 88, counters: 96, size: 112}
	layout6 = layout{family: "ip6", inName: 64, targetAt: 140, counters: 152, size: 168, v6: true}
)

const (
	nameSize     = 16 // IFNAMSIZ
	sizeofTarget = 32 // struct xt_entry_target: size, name, revision
	xtHooks      = 5  // NF_INET_NUMHOOKS
)

var hookNames = [xtHooks]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

// xtEntry is one rule of a table.
type xtEntry struct {
	chain   string
	in, out string // device; empty: any
	target  string
	to      netip.Addr
	detail  string
}

// hooks is where a table's built-in chains begin and end.
type hooks struct {
	valid      uint32
	begin, end [xtHooks]uint32
}

// parseTable reads the rules of a table.
func parseTable(b []byte, l layout, h hooks) ([]xtEntry, error) {
	var all []xtEntry
	chain := ""
	for at := 0; at < len(b); {
		rest := b[at:]
		if len(rest) < l.size {
			return nil, fmt.Errorf("%w: %d bytes are no rule", errTable, len(rest))
		}
		target, next := int(binary.NativeEndian.Uint16(rest[l.targetAt:])), int(binary.NativeEndian.Uint16(rest[l.targetAt+2:]))
		if target < l.size || target+sizeofTarget > next || next > len(rest) {
			return nil, fmt.Errorf("%w: rule of %d bytes with its target at %d, in %d", errTable, next, target, len(rest))
		}
		e := parseEntry(rest[:next], target, l)
		chain = h.chain(uint32(at), chain)
		switch e.target {
		case "ERROR": // begins a chain of the user, and ends the table
			chain = textOf(rest[target+sizeofTarget : next])
		default:
			e.chain = chain
			all = append(all, e)
		}
		at += next
	}
	return all, nil
}

// chain is the built-in chain that begins at a place, or the one before.
func (h hooks) chain(at uint32, before string) string {
	for i, name := range hookNames {
		if h.valid&(1<<i) != 0 && h.begin[i] == at {
			return name
		}
	}
	return before
}

func parseEntry(b []byte, target int, l layout) xtEntry {
	e := xtEntry{
		in:     device(b[l.inName:], b[l.inName+2*nameSize:]),
		out:    device(b[l.inName+nameSize:], b[l.inName+3*nameSize:]),
		target: textOf(b[target+xtNameAt : target+xtNameAt+xtNameLength]),
	}
	info := b[target+sizeofTarget:]
	e.to = teeGateway(e.target, info, l.v6)
	switch {
	case e.to.IsValid():
		e.detail = " gateway " + e.to.String()
	case e.target == "NFLOG" && len(info) >= 6: // struct xt_nflog_info: len, group
		e.detail = fmt.Sprintf(" group %d", binary.NativeEndian.Uint16(info[4:]))
	case e.target == "NFQUEUE" && len(info) >= 2: // struct xt_NFQ_info
		e.detail = fmt.Sprintf(" queue %d", binary.NativeEndian.Uint16(info))
	}
	return e
}

// device is a name that a packet's device must have in full; its mask covers
// the final NUL then.
func device(name, mask []byte) string {
	text := textOf(name[:nameSize])
	if text == "" || len(text) >= nameSize || mask[len(text)] == 0 {
		return ""
	}
	return text
}

// findings writes down what of a table copies or diverts. Rules that are alike
// are counted, so that one that is put in front does not rename the others.
func tableFindings(entries []xtEntry, l layout, table string) (all []finding) {
	alike := map[string]int{}
	for _, e := range entries {
		does, copies := targets[e.target]
		if !copies {
			continue
		}
		var f finding
		rule := fmt.Sprintf("iptables/%s/%s/%s/%s/%s-%s%s", l.family, table, e.chain, e.target, e.in, e.out, e.detail)
		alike[rule]++
		f.Subject = fmt.Sprintf("%s/%d", rule, alike[rule])
		f.Cause, f.Harmless, f.In, f.to = does.words, does.harmless, e.in, e.to
		if e.to.IsValid() {
			f.Target = e.to.String()
		}
		f.Detail = fmt.Sprintf("%s table %s chain %s: in %q out %q %s%s", l.family, table, e.chain, e.in, e.out, e.target, e.detail)
		all = append(all, f)
	}
	return all
}
