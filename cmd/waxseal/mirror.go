package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"waxseal/measure/authorised"
)

func (a *app) mirror() *cobra.Command {
	return a.group("mirror", "Mirrors that are allowed: who approved which copies of traffic, and until when",
		a.mirrorAuthorise(), a.mirrorList(), a.mirrorRevoke(), a.mirrorApprover(), a.mirrorFollow())
}

// authorising is the command line of mirror authorise.
type authorising struct {
	owner, as, out, approve string
	begin, until            string
	inner, outer            []string
	vlans                   []uint
	entry                   authorised.Entry
}

func (a *app) mirrorAuthorise() *cobra.Command {
	var p authorising
	c := &cobra.Command{
		Use: "authorise", Aliases: []string{"authorize"}, Short: "Allow a mirror, or approve what somebody else allows",
		Long: "Adds a mirror to a file that routers read, and signs it. What the mirror does not name it does not allow.\n" +
			"Where more than one person must sign, the others run it with --approve; until then the file counts for nothing.",
		Args: args(),
	}
	f := c.Flags()
	f.StringVar(&p.owner, "owner", "", "`DIR` with approvers.json and your keys (mirror approver makes them)")
	f.StringVar(&p.as, "as", "", "your `NAME` among the approvers (default: the only one whose keys are in --owner)")
	f.StringVar(&p.approve, "approve", "", "sign the `FILE` as it is, which somebody else has signed: read it first with mirror list")
	f.StringVarP(&p.out, "out", "o", "", "`FILE` of authorised mirrors, to which this one is added; it is made where there is none")
	f.StringVar(&p.entry.Reference, "ref", "", "reference of the approval, such as a ticket")
	f.StringSliceVar(&p.entry.Devices, "device", []string{"*"}, "serial `NUMBERS` of the routers, * for all")
	f.StringSliceVar(&p.entry.From, "from", nil, "`PORTS` whose traffic is copied, * for all")
	f.StringSliceVar(&p.entry.To, "to", nil, "`PORTS` or devices by which copies leave")
	f.StringSliceVar(&p.outer, "outer", nil, "`ADDRESSES` or prefixes that copies are sent to")
	f.StringSliceVar(&p.inner, "inner", nil, "`ADDRESSES` or prefixes of the traffic that is copied (default: all)")
	f.UintSliceVar(&p.vlans, "vlan", nil, "`VLANS` of the traffic that is copied (default: all)")
	f.StringSliceVar(&p.entry.Mechanisms, "by", nil, "`MECHANISMS` such as 'tc mirred' (default: all that send copies on); 'packet socket' for a capture on the router")
	f.Uint64Var(&p.entry.MaxRate, "max-rate", 0, "copied packets a second, at most")
	f.StringVar(&p.begin, "begin", "", "`TIME` from which it holds (default: now)")
	f.StringVar(&p.until, "until", "", "`TIME` when it is over: 2026-12-31, 2026-12-31T18:00:00Z, or 72h from now")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if p.approve != "" {
			if err := need(c, "owner"); err != nil {
				return err
			}
			return inVerb("mirror authorise", a.approve(p))
		}
		if err := need(c, "owner", "ref", "until", "out"); err != nil {
			return err
		}
		if len(p.entry.From) == 0 || p.entry.MaxRate == 0 {
			return usageError{c.CommandPath(), errors.New("need --from, whose traffic is copied, and --max-rate, in packets a second")}
		}
		if err := p.parse(a.now()); err != nil {
			return usageError{c.CommandPath(), err}
		}
		return inVerb("mirror authorise", a.authorise(p))
	}
	return c
}

// inVerb says in which verb an error was met.
func inVerb(verb string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	return nil
}

// parse reads what the command line says in words.
func (p *authorising) parse(now time.Time) (err error) {
	now = now.UTC().Truncate(time.Second)
	p.entry.NotBefore = now
	if p.begin != "" {
		if p.entry.NotBefore, err = parseMoment(p.begin, now); err != nil {
			return fmt.Errorf("--begin: %w", err)
		}
	}
	if p.entry.Until, err = parseMoment(p.until, now); err != nil {
		return fmt.Errorf("--until: %w", err)
	}
	if p.entry.Outer, err = parsePrefixes(p.outer); err != nil {
		return fmt.Errorf("--outer: %w", err)
	}
	if p.entry.Inner, err = parsePrefixes(p.inner); err != nil {
		return fmt.Errorf("--inner: %w", err)
	}
	for _, id := range p.vlans {
		if id > 4094 {
			return fmt.Errorf("--vlan: %d is no VLAN", id)
		}
		p.entry.VLANs = append(p.entry.VLANs, uint16(id))
	}
	return nil
}

// parseMoment reads a date, a time, or how long it is until then.
func parseMoment(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(d).Truncate(time.Second), nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC().Truncate(time.Second), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time such as 2026-12-31, 2026-12-31T18:00:00Z or 72h", s)
}

// parsePrefixes reads prefixes, and addresses as prefixes of one.
func parsePrefixes(list []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if !strings.Contains(s, "/") {
			var a netip.Addr
			a, err = netip.ParseAddr(s)
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if err != nil {
			return nil, fmt.Errorf("%q is neither an address nor a prefix", s)
		}
		out = append(out, p)
	}
	return out, nil
}

// authorise adds an entry to a file and signs the list that it makes.
func (a *app) authorise(p authorising) error {
	trust, err := a.approvers(p.owner)
	if err != nil {
		return err
	}
	who, keys, err := approverKeys(p.owner, p.as)
	if err != nil {
		return err
	}
	before, err := a.listBefore(p.out, trust)
	if err != nil {
		return err
	}
	list, err := before.Next(a.now()).Add(p.entry)
	if err != nil {
		return err
	}
	file, err := list.Sign(keys)
	if err != nil {
		return err
	}
	set, err := writeMirrors(p.out, file, trust)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "Authorised %s as %s, signed by %s: %s has number %d.\n",
		clean(p.entry.Reference), list.Entries[len(list.Entries)-1].ID, who, p.out, list.Number)
	a.tellMissing(p.out, set, trust)
	return nil
}

// listBefore is the list that a file holds; an empty one if there is no file.
// Its number is never below what routers may have seen.
func (a *app) listBefore(path string, trust authorised.Approvers) (authorised.List, error) {
	b, err := readFile(path, authorised.MaxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return authorised.List{Number: trust.Least}, nil
	}
	if err != nil {
		return authorised.List{}, err
	}
	set, err := authorised.Read(b, trust)
	if err != nil {
		return authorised.List{}, fmt.Errorf("%s: %w", path, err)
	}
	return set.List(), nil
}

// approve signs a list that somebody else has made.
func (a *app) approve(p authorising) error {
	trust, err := a.approvers(p.owner)
	if err != nil {
		return err
	}
	who, keys, err := approverKeys(p.owner, p.as)
	if err != nil {
		return err
	}
	file, set, err := readMirrors(p.approve, trust)
	if err != nil {
		return err
	}
	if len(file.Revocations) > 0 {
		return fmt.Errorf("%s: something was revoked since it was signed: have it authorised anew", p.approve)
	}
	if file, err = file.Approve(set.List(), keys); err != nil {
		return err
	}
	if set, err = writeMirrors(p.approve, file, trust); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "Approved number %d of %s, signed by %s:\n", set.Number(), p.approve, who)
	for _, e := range set.List().Entries {
		fmt.Fprintf(a.stdout, "  %s  %s\n", e.ID, clean(scopeText(e)))
	}
	a.tellMissing(p.approve, set, trust)
	return nil
}

func (a *app) approvers(owner string) (authorised.Approvers, error) {
	trust, err := readApprovers(filepath.Join(owner, approversFile))
	if errors.Is(err, fs.ErrNotExist) {
		return trust, fmt.Errorf("%w: name somebody first with mirror approver NAME --owner %s", err, owner)
	}
	return trust, err
}

// tellMissing says how many signatures are missing.
func (a *app) tellMissing(path string, set authorised.Set, trust authorised.Approvers) {
	if have := len(set.Signers()); have < trust.Approvals {
		fmt.Fprintf(a.stdout, "It has %d of %d signatures, and counts for nothing yet: another approver runs\n  waxseal mirror authorise --approve %s --owner DIR\n",
			have, trust.Approvals, path)
	}
}

func readMirrors(path string, trust authorised.Approvers) (authorised.File, authorised.Set, error) {
	b, err := readFile(path, authorised.MaxFile)
	if err != nil {
		return authorised.File{}, authorised.Set{}, err
	}
	set, err := authorised.Read(b, trust)
	if err != nil {
		return authorised.File{}, authorised.Set{}, fmt.Errorf("%s: %w", path, err)
	}
	file, err := authorised.ParseFile(b)
	return file, set, err
}

// writeMirrors writes a file that can be read again.
func writeMirrors(path string, file authorised.File, trust authorised.Approvers) (authorised.Set, error) {
	b, err := file.Encode()
	if err != nil {
		return authorised.Set{}, err
	}
	set, err := authorised.Read(b, trust)
	if err != nil {
		return authorised.Set{}, err
	}
	return set, writeFile(path, b)
}
