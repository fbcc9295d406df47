package config

import (
	"context"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netlink"
)

// Attributes of an action (include/uapi/linux/pkt_cls.h, TCA_ACT_*).
const (
	actKind    = 1
	actOptions = 2
	actIndex   = 3
)

// Attributes of actions that copy (include/uapi/linux/tc_act/). In all of them
// TCA_*_PARMS is 2 and begins with struct tc_gen of 20 bytes.
const (
	actParms     = 2
	sizeofGen    = 20
	mirredBlock  = 4  // TCA_MIRRED_BLOCKID
	sampleRate   = 3  // TCA_SAMPLE_RATE
	sampleGroup  = 5  // TCA_SAMPLE_PSAMPLE_GROUP
	actBPFID     = 9  // TCA_ACT_BPF_ID
	iptTarget    = 6  // TCA_IPT_TARG, struct xt_entry_target
	xtNameAt     = 2  // in struct xt_entry_target
	xtNameLength = 29 // XT_EXTENSION_MAXNAMELEN
)

// mirredDoes are the values of tc_mirred.eaction (tc_act/tc_mirred.h).
var mirredDoes = map[uint32]struct{ cause, text string }{
	1: {"tc mirred redirect", "mirred egress redirect"},
	2: {"tc mirred mirror", "mirred egress mirror"},
	3: {"tc mirred redirect", "mirred ingress redirect"},
	4: {"tc mirred mirror", "mirred ingress mirror"},
}

// actions reads a list of actions. Its types are their order.
func (s *space) actions(b []byte, subject string) ([]finding, error) {
	var all []finding
	for a, err := range netlink.Attributes(b) {
		if err != nil {
			return nil, err
		}
		f, err := s.action(a.Data)
		if err != nil {
			return nil, err
		}
		if f.Cause != "" {
			f.Kind, f.Detector = mirror.Rule, "tc"
			f.Subject = fmt.Sprintf("%s/%d", subject, a.Type)
			all = append(all, f)
		}
	}
	return all, nil
}

// action reads one action. One that neither copies nor diverts has no cause.
func (s *space) action(b []byte) (finding, error) {
	a, err := attributes(b)
	if err != nil {
		return finding{}, err
	}
	options, err := attributes(a[actOptions].Data)
	if err != nil {
		return finding{}, err
	}
	var f finding
	switch kind := a[actKind].String(); kind {
	case "mirred":
		return s.mirred(options), nil
	case "sample":
		f.Cause, f.Harmless = "tc sample", false
		f.Detail = fmt.Sprintf("sample one in %d to psample group %d", options[sampleRate].Uint32(), options[sampleGroup].Uint32())
	case "bpf":
		f = s.programAction(options[actBPFID].Uint32())
	case "xt", "ipt":
		f = xtAction(options[iptTarget].Data)
	case "nat":
		f.Cause, f.Detail, f.Harmless = "tc nat", "nat", true
	}
	return f, nil
}

func (s *space) mirred(options map[uint16]netlink.Attr) (f finding) {
	parms := options[actParms].Data
	if len(parms) < sizeofGen+8 {
		return f
	}
	does := mirredDoes[binary.NativeEndian.Uint32(parms[sizeofGen:])]
	f.device = int32(binary.NativeEndian.Uint32(parms[sizeofGen+4:]))
	f.Cause, f.Detail = does.cause, does.text
	if f.Cause == "" {
		f.Cause, f.Detail = "tc mirred of an unknown form", "mirred"
	}
	if block := options[mirredBlock].Uint32(); block != 0 {
		f.device = 0
		f.Detail += fmt.Sprintf(" to all devices of block %d", block)
		return f
	}
	f.Target = s.links.name(f.device)
	f.Detail += " to device " + f.Target
	if to, _ := s.links.get(f.device); to.kind == "ifb" && f.Cause == "tc mirred redirect" {
		// It comes back from there; what is done to it there is told of by itself.
		f.Harmless = true
	}
	return f
}

func (s *space) programAction(id uint32) (f finding) {
	if s.config.Ours != nil && s.config.Ours(id) {
		return f
	}
	f.Cause, f.Detail = "tc bpf action", s.programText(id)
	if s.config.Program != nil && id != 0 {
		_, copies := s.config.Program(id)
		f.Harmless = !copies
	}
	return f
}

// xtAction is an iptables target that tc runs (up to kernel 6.6).
func xtAction(target []byte) (f finding) {
	if len(target) < xtNameAt+xtNameLength {
		return f
	}
	name := textOf(target[xtNameAt : xtNameAt+xtNameLength])
	if does, copies := targets[name]; copies {
		f.Cause, f.Detail, f.Harmless = "tc "+does.words, "xt "+name, does.harmless
	}
	return f
}

// actionKinds are the actions that are looked for on their own.
var actionKinds = []string{"mirred", "sample", "bpf"}

// readActions lists actions that exist by themselves. They do nothing until a
// filter runs them, and then the filter tells of them; one that nobody runs is
// a preparation.
func (s *space) readActions(ctx context.Context) (all []finding, err error) {
	for _, kind := range actionKinds {
		// struct tcamsg, and a list with one action of the kind (TCA_ACT_TAB).
		body := netlink.AppendNested(make([]byte, 4), 1, netlink.AppendNested(nil, 1, netlink.AppendString(nil, actKind, kind)))
		err := s.route.Dump(ctx, unix.RTM_GETACTION, body, func(m netlink.Message) error {
			found, err := s.actionTable(m)
			all = append(all, found...)
			return err
		})
		if err = gone(err); err != nil {
			return nil, fmt.Errorf("tc actions: %w", err)
		}
	}
	return all, nil
}

func (s *space) actionTable(m netlink.Message) (all []finding, err error) {
	rest, err := m.Rest(4)
	if err != nil {
		return nil, err
	}
	table, err := attributes(rest)
	if err != nil {
		return nil, err
	}
	for a, err := range netlink.Attributes(table[1].Data) {
		if err != nil {
			return nil, err
		}
		f, err := s.action(a.Data)
		if err != nil {
			return nil, err
		}
		if index, bound := actionUse(a.Data); f.Cause != "" && !bound {
			f.Kind, f.Detector, f.Harmless = mirror.Rule, "tc", true
			f.Subject = fmt.Sprintf("action/%s/%d", f.Cause, index)
			f.Detail += ", run by no filter"
			all = append(all, f)
		}
	}
	return all, nil
}

// actionUse reads index and bindcnt of struct tc_gen.
func actionUse(b []byte) (index uint32, bound bool) {
	a, _ := attributes(b)
	options, _ := attributes(a[actOptions].Data)
	parms := options[actParms].Data
	if len(parms) < sizeofGen {
		return 0, false
	}
	return binary.NativeEndian.Uint32(parms), binary.NativeEndian.Uint32(parms[16:]) > 0
}
