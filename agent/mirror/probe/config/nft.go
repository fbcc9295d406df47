package config

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netlink"
)

const (
	nftGroup    = 7 // NFNLGRP_NFTABLES, include/uapi/linux/netfilter/nfnetlink.h
	sizeofNFGen = 4 // struct nfgenmsg: family, version, resource

	// wholeEvery is how often rules are read though their generation says that
	// nothing has changed.
	wholeEvery = 10 * time.Second
)

// nftType is the type of an nf_tables message.
func nftType(message uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | message }

// families names netfilter's families (NFPROTO_*).
var families = map[byte]string{1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}

// chainKey names a chain.
type chainKey struct {
	family      byte
	table, name string
}

// chain is an nftables chain; only a base chain has devices or a hook.
type chain struct {
	chainKey
	base    bool
	devices []string
}

// nftables is what is known of a namespace's chains, so that a rule can be
// told with the device on which it works.
type nftables struct {
	conn  *netlink.Conn
	rules []nftRule // as last read
	stamp uint32    // generation of the rule set at that time
	whole time.Time // when that was

	mu      sync.Mutex // guards what follows
	chains  map[chainKey]chain
	callers map[chainKey]map[chainKey]bool // chains with a jump to this one
}

func (t *nftables) set(c chain) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.chains[c.chainKey] = c
}

func (t *nftables) replace(all map[chainKey]chain, callers map[chainKey]map[chainKey]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.chains, t.callers = all, callers
}

// calls notes the jumps of a rule.
func (t *nftables) calls(r nftRule) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.addTo(t.callers)
}

func (r nftRule) addTo(callers map[chainKey]map[chainKey]bool) {
	for _, called := range r.jumps {
		to := chainKey{r.family, r.table, called}
		if callers[to] == nil {
			callers[to] = map[chainKey]bool{}
		}
		callers[to][r.chainKey] = true
	}
}

// devices are those of the base chains from which a chain is reached.
func (t *nftables) devices(key chainKey) (found []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := map[chainKey]bool{}
	next := []chainKey{key}
	for len(next) > 0 && len(seen) < 256 {
		k := next[0]
		next = next[1:]
		if seen[k] {
			continue
		}
		seen[k] = true
		found = append(found, t.chains[k].devices...)
		for caller := range t.callers[k] {
			next = append(next, caller)
		}
	}
	return found
}

// parseChain reads NFT_MSG_NEWCHAIN.
func parseChain(m netlink.Message) (chain, error) {
	rest, err := m.Rest(sizeofNFGen)
	if err != nil {
		return chain{}, err
	}
	a, err := attributes(rest)
	if err != nil {
		return chain{}, fmt.Errorf("nft chain: %w", err)
	}
	c := chain{chainKey: chainKey{m.Body[0], a[unix.NFTA_CHAIN_TABLE].String(), a[unix.NFTA_CHAIN_NAME].String()}}
	hook, base := a[unix.NFTA_CHAIN_HOOK]
	if !base {
		return c, nil
	}
	c.base = true
	inside, err := attributes(hook.Data)
	if err != nil {
		return chain{}, fmt.Errorf("hook of nft chain %s: %w", c.name, err)
	}
	if dev, ok := inside[unix.NFTA_HOOK_DEV]; ok {
		c.devices = append(c.devices, dev.String())
	}
	const devices = 4 // NFTA_HOOK_DEVS
	for d, err := range netlink.Attributes(inside[devices].Data) {
		if err != nil {
			return chain{}, fmt.Errorf("devices of nft chain %s: %w", c.name, err)
		}
		if name := d.String(); len(c.devices) == 0 || c.devices[0] != name {
			c.devices = append(c.devices, name)
		}
	}
	return c, nil
}

// readNFT lists all rules, of all families, and what of them copies or diverts.
func (s *space) readNFT(ctx context.Context) ([]finding, error) {
	if s.nft == nil {
		if err := s.openNFT(); err != nil {
			return nil, err
		}
	}
	stamp, err := s.nft.generation(ctx)
	if err != nil {
		return nil, fmt.Errorf("nft generation: %w", err)
	}
	if stamp != s.nft.stamp || time.Since(s.nft.whole) > wholeEvery {
		if err := s.nft.read(ctx); err != nil {
			return nil, err
		}
		s.nft.stamp, s.nft.whole = stamp, time.Now()
	}
	var all []finding
	for _, r := range s.nft.rules {
		all = append(all, s.nftFindings(r)...)
	}
	return all, nil
}

// generation is a number that the kernel changes with each transaction.
func (t *nftables) generation(ctx context.Context) (uint32, error) {
	answers, err := t.conn.Request(ctx, nftType(unix.NFT_MSG_GETGEN), 0, make([]byte, sizeofNFGen))
	if err != nil {
		return 0, err
	}
	const id = 1 // NFTA_GEN_ID
	for _, m := range answers {
		if rest, err := m.Rest(sizeofNFGen); err == nil {
			a, err := attributes(rest)
			return a[id].BigUint32(), err
		}
	}
	return 0, fmt.Errorf("%w: no answer", netlink.ErrMalformed)
}

// read lists all chains and rules.
func (t *nftables) read(ctx context.Context) error {
	chains, callers := map[chainKey]chain{}, map[chainKey]map[chainKey]bool{}
	err := t.conn.Dump(ctx, nftType(unix.NFT_MSG_GETCHAIN), make([]byte, sizeofNFGen), func(m netlink.Message) error {
		c, err := parseChain(m)
		chains[c.chainKey] = c
		return err
	})
	if err != nil {
		return fmt.Errorf("nft chains: %w", err)
	}
	var rules []nftRule
	err = t.conn.Dump(ctx, nftType(unix.NFT_MSG_GETRULE), make([]byte, sizeofNFGen), func(m netlink.Message) error {
		r, err := parseRule(m)
		if err != nil {
			return err
		}
		r.addTo(callers)
		if len(r.acts) > 0 {
			rules = append(rules, r)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("nft rules: %w", err)
	}
	t.rules = rules
	t.replace(chains, callers)
	return nil
}

// nftFindings writes a rule down.
func (s *space) nftFindings(r nftRule) (all []finding) {
	devices := s.nft.devices(r.chainKey)
	for i, a := range r.acts {
		f := finding{device: a.device, to: a.to, Observation: mirror.Observation{
			Kind: mirror.Rule, Detector: "nftables", Cause: a.cause, Harmless: a.harmless,
			Subject: fmt.Sprintf("nft/%s/%s/%s/%d/%d", families[r.family], r.table, r.name, r.handle, i),
			Detail:  fmt.Sprintf("table %s %s chain %s handle %d: %s", families[r.family], r.table, r.name, r.handle, r.text),
		}}
		switch {
		case a.device != 0:
			f.Target = s.links.name(a.device)
		case a.to.IsValid():
			f.Target = a.to.String()
		}
		if f.In = r.in(s); f.In == "" && len(devices) > 0 {
			f.In = devices[0]
		}
		if len(devices) > 0 {
			f.Detail += " (on " + strings.Join(devices, ", ") + ")"
		}
		all = append(all, f)
	}
	return all
}

// in is the device from which the rule takes packets, if it says so.
func (r nftRule) in(s *space) string {
	if r.from != "" {
		return r.from
	}
	if r.fromIndex != 0 {
		return s.links.name(r.fromIndex)
	}
	return ""
}
