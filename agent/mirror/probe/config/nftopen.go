package config

import (
	"fmt"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netlink"
)

// openNFT listens to nftables, if the kernel has it loaded.
func (s *space) openNFT() error {
	if !loaded("nf_tables") {
		return errNotLoaded
	}
	var conn, push *netlink.Conn
	err := s.inside(func() (err error) {
		if conn, err = netlink.Dial(unix.NETLINK_NETFILTER); err != nil {
			return err
		}
		s.keep(conn)
		if push, err = netlink.Dial(unix.NETLINK_NETFILTER, nftGroup); err != nil {
			return err
		}
		s.keep(push)
		return push.Room(roomForEvents)
	})
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	s.nft = &nftables{conn: conn, chains: map[chainKey]chain{}, callers: map[chainKey]map[chainKey]bool{}}
	digest := nftDigest{space: s}
	s.addListener(&listener{name: "nftables", conn: push, digest: digest.take})
	return nil
}

// nftDigest collects the rules of a transaction until the message that ends it,
// which names the process (nf_tables_gen_notify in net/netfilter/nf_tables_api.c).
type nftDigest struct {
	space *space
	rules []nftRule
}

func (d *nftDigest) take(m netlink.Message) []event {
	switch m.Type {
	case nftType(unix.NFT_MSG_NEWCHAIN):
		if c, err := parseChain(m); err == nil {
			d.space.nft.set(c)
		}
	case nftType(unix.NFT_MSG_NEWRULE):
		if r, err := parseRule(m); err == nil && len(d.rules) < maxFindings {
			d.space.nft.calls(r)
			d.rules = append(d.rules, r)
		}
	case nftType(unix.NFT_MSG_NEWGEN):
		e := event{area: d.space.nftArea, process: generationOf(m, d.space.netns.Inode)}
		for _, r := range d.rules {
			e.findings = append(e.findings, d.space.nftFindings(r)...)
		}
		d.rules = nil
		return []event{e}
	}
	return nil
}

// generationOf reads who ended a transaction.
func generationOf(m netlink.Message, namespace uint64) mirror.Process {
	rest, err := m.Rest(sizeofNFGen)
	if err != nil {
		return mirror.Process{}
	}
	const procPID, procName = 2, 3 // NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME
	a, err := attributes(rest)
	if err != nil || a[procPID].BigUint32() == 0 {
		return mirror.Process{}
	}
	p := mirror.Process{PID: int(a[procPID].BigUint32()), Comm: a[procName].String()}
	if still := processOf(uint32(p.PID), namespace); still.Comm == p.Comm {
		p.Exe = still.Exe
	}
	return p
}
