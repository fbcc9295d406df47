package config

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror/probe/netlink"
)

// nftRule is one rule, as far as it copies, diverts or jumps.
type nftRule struct {
	chainKey
	handle    uint64
	acts      []nftAct
	jumps     []string // chains
	from      string   // device by which a packet must have come; empty: any
	fromIndex int32
	text      string
}

// nftAct is one expression that copies or diverts.
type nftAct struct {
	cause    string
	harmless bool
	device   int32
	to       netip.Addr
}

// parseRule reads NFT_MSG_NEWRULE (include/uapi/linux/netfilter/nf_tables.h).
func parseRule(m netlink.Message) (nftRule, error) {
	rest, err := m.Rest(sizeofNFGen)
	if err != nil {
		return nftRule{}, err
	}
	a, err := attributes(rest)
	if err != nil {
		return nftRule{}, fmt.Errorf("nft rule: %w", err)
	}
	r := nftRule{
		chainKey: chainKey{m.Body[0], a[unix.NFTA_RULE_TABLE].String(), a[unix.NFTA_RULE_CHAIN].String()},
		handle:   a[unix.NFTA_RULE_HANDLE].BigUint64(),
	}
	machine := registers{rule: &r, values: map[uint32]value{}}
	var words []string
	for e, err := range netlink.Attributes(a[unix.NFTA_RULE_EXPRESSIONS].Data) {
		if err != nil {
			return nftRule{}, fmt.Errorf("nft rule %d: %w", r.handle, err)
		}
		word, err := machine.expression(e.Data)
		if err != nil {
			return nftRule{}, fmt.Errorf("nft rule %d: %w", r.handle, err)
		}
		words = append(words, word)
	}
	r.text = strings.Join(words, ", ")
	return r, nil
}

// registers follows what a rule puts into the machine's registers, so that the
// place to which it copies is known where the rule itself says it.
type registers struct {
	rule   *nftRule
	values map[uint32]value // by number of the 32-bit word
}

type value struct {
	data []byte // of an immediate
	meta uint32 // key of the meta expression that set it, and 1 more, so that 0 is none
	from string // map from which it comes
}

// word is the number of the first 32-bit word of a register: 1 to 4 are 16
// bytes wide, from 8 on 4 bytes (NFT_REG_1, NFT_REG32_00).
func word(register uint32) uint32 {
	if register < 8 {
		return register * 4
	}
	return register - 8 + 4
}

func (r *registers) at(a netlink.Attr) value { return r.values[word(a.BigUint32())] }

func (r *registers) put(a netlink.Attr, v value) { r.values[word(a.BigUint32())] = v }

// writes are the attributes by which expressions name the register that they
// write, of those that are not read closer.
var writes = map[string]uint16{
	"payload": 1, "ct": 1, "rt": 1, "exthdr": 1, "numgen": 1, "fib": 1, "osf": 1, "hash": 2, "bitwise": 2, "byteorder": 2, "socket": 2, "tunnel": 2, "xfrm": 1,
}

// expression takes one step of the rule and returns it as text.
func (r *registers) expression(b []byte) (string, error) {
	e, err := attributes(b)
	if err != nil {
		return "", err
	}
	name := e[unix.NFTA_EXPR_NAME].String()
	a, err := attributes(e[unix.NFTA_EXPR_DATA].Data)
	if err != nil {
		return "", fmt.Errorf("expression %s: %w", name, err)
	}
	switch name {
	case "immediate":
		return r.immediate(a)
	case "meta":
		if dreg, ok := a[unix.NFTA_META_DREG]; ok {
			r.put(dreg, value{meta: a[unix.NFTA_META_KEY].BigUint32() + 1})
		}
	case "cmp":
		return r.compare(a)
	case "lookup":
		if dreg, ok := a[unix.NFTA_LOOKUP_DREG]; ok {
			r.put(dreg, value{from: a[unix.NFTA_LOOKUP_SET].String()})
		}
		return "lookup in " + a[unix.NFTA_LOOKUP_SET].String(), nil
	default:
		if dreg, ok := a[writes[name]]; ok && writes[name] != 0 {
			r.put(dreg, value{})
		}
		return r.act(name, a), nil
	}
	return name, nil
}

// immediate loads a constant, or gives a verdict.
func (r *registers) immediate(a map[uint16]netlink.Attr) (string, error) {
	data, err := attributes(a[unix.NFTA_IMMEDIATE_DATA].Data)
	if err != nil {
		return "", err
	}
	if v, ok := data[unix.NFTA_DATA_VERDICT]; ok {
		return r.verdict(v)
	}
	r.put(a[unix.NFTA_IMMEDIATE_DREG], value{data: data[unix.NFTA_DATA_VALUE].Data})
	return "immediate", nil
}

// Verdicts (NF_DROP to NF_QUEUE in linux/netfilter.h, NFT_JUMP and NFT_GOTO).
var verdicts = map[int32]string{0: "drop", 1: "accept", -1: "continue", -3: "jump", -4: "goto", -5: "return"}

const queueVerdict = 3

func (r *registers) verdict(v netlink.Attr) (string, error) {
	inside, err := attributes(v.Data)
	if err != nil {
		return "", err
	}
	code := int32(inside[unix.NFTA_VERDICT_CODE].BigUint32())
	if to := inside[unix.NFTA_VERDICT_CHAIN].String(); to != "" {
		r.rule.jumps = append(r.rule.jumps, to)
		return verdicts[code] + " " + to, nil
	}
	if code > 0 && code&0xff == queueVerdict {
		r.rule.acts = append(r.rule.acts, nftAct{cause: "nft queue"})
		return fmt.Sprintf("queue to %d", code>>16), nil
	}
	return verdicts[code], nil
}

// Keys of the meta expression (NFT_META_*).
const (
	metaIn, metaOut, metaInName, metaOutName = 4, 5, 6, 7
)

// compare notes the device by which a packet must come.
func (r *registers) compare(a map[uint16]netlink.Attr) (string, error) {
	data, err := attributes(a[unix.NFTA_CMP_DATA].Data)
	if err != nil {
		return "", err
	}
	against := data[unix.NFTA_DATA_VALUE].Data
	equal := a[unix.NFTA_CMP_OP].BigUint32() == 0 // NFT_CMP_EQ
	switch key := r.at(a[unix.NFTA_CMP_SREG]).meta; {
	case key == metaInName+1 && equal:
		r.rule.from = textOf(against)
		return "from " + r.rule.from, nil
	case key == metaIn+1 && equal && len(against) == 4:
		r.rule.fromIndex = int32(binary.NativeEndian.Uint32(against))
	case key == metaOutName+1 && equal:
		return "out by " + textOf(against), nil
	}
	return "cmp", nil
}
