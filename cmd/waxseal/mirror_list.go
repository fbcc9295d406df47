package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"waxseal/measure/authorised"
	"waxseal/measure/manifest/sealed"
)

func (a *app) mirrorList() *cobra.Command {
	var owner, serial string
	format := tableFormat
	c := &cobra.Command{
		Use: "list FILE", Short: "Verify a file of authorised mirrors and show what it allows now",
		Long: "Shows a file only if all its signatures are good; if not, the exit code is 3. A file that is not signed by enough\n" +
			"people is shown too, with exit code 3: it counts for nothing.",
		Args: args("FILE, of authorised mirrors"),
	}
	c.Flags().StringVar(&owner, "owner", "", "`DIR` with approvers.json")
	c.Flags().StringVar(&serial, "serial", "", "show only what concerns the router of this serial number")
	c.Flags().VarP(&format, "output", "o", "table or json")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := need(c, "owner"); err != nil {
			return err
		}
		trust, err := a.approvers(owner)
		if err != nil {
			return inVerb("mirror list", err)
		}
		_, set, err := readMirrors(args[0], trust)
		if errors.Is(err, sealed.ErrSignature) || errors.Is(err, sealed.ErrAlgorithm) || errors.Is(err, authorised.ErrOld) || errors.Is(err, authorised.ErrDifferent) {
			fmt.Fprintf(a.stdout, "REFUSED: %s\n", clean(err.Error()))
			return exitCode(exitFailed)
		}
		if err != nil {
			return inVerb("mirror list", err)
		}
		return a.showMirrors(listing(set, trust, serial, a.now()), format)
	}
	return c
}

// mirrorListing is a file of authorised mirrors as it stands now.
type mirrorListing struct {
	Number    uint64        `json:"number"`
	Issued    time.Time     `json:"issued"`
	SignedBy  []string      `json:"signed_by"`
	Approvals int           `json:"approvals"` // how many are needed
	InForce   bool          `json:"in_force"`
	Mirrors   []mirrorState `json:"mirrors"`
}

type mirrorState struct {
	State string `json:"state"` // "in force", or why it does not count
	authorised.Entry
}

func listing(set authorised.Set, trust authorised.Approvers, serial string, now time.Time) mirrorListing {
	l := mirrorListing{
		Number: set.Number(), Issued: set.List().Issued, SignedBy: set.Signers(), Approvals: trust.Approvals,
		InForce: len(set.Signers()) >= trust.Approvals, Mirrors: []mirrorState{},
	}
	for _, e := range set.List().Entries {
		if serial == "" || e.IsFor(serial) {
			l.Mirrors = append(l.Mirrors, mirrorState{set.State(e, now), e})
		}
	}
	return l
}

func (a *app) showMirrors(l mirrorListing, format outputFormat) error {
	var err error
	if format == jsonFormat {
		var b []byte
		if b, err = json.Marshal(l, jsontext.WithIndent("  ")); err == nil {
			_, err = a.stdout.Write(append(b, '\n'))
		}
	} else {
		t := table{paint: paintFor(a.stdout)}
		t.mirrors(l)
		_, err = io.WriteString(a.stdout, t.String())
	}
	if err == nil && !l.InForce {
		return exitCode(exitFailed)
	}
	return err
}

func (t *table) mirrors(l mirrorListing) {
	sentence := t.paint(green, "IN FORCE") + ": signed by " + clean(strings.Join(l.SignedBy, ", ")) + "."
	if !l.InForce {
		sentence = t.paint(red, "NOT IN FORCE") + fmt.Sprintf(": %d of %d signatures, by %s; it counts for nothing.",
			len(l.SignedBy), l.Approvals, clean(strings.Join(l.SignedBy, ", ")))
	}
	t.line("%s", sentence)
	t.line("")
	t.line("number      %d, of %s", l.Number, l.Issued.Format(time.RFC3339))
	for _, m := range l.Mirrors {
		colour := yellow
		if m.State == "in force" {
			colour = green
		}
		t.line("")
		t.line("%s  %s  %s", pad(clean(m.ID), 5), t.paint(colour, clean(m.State)), clean(m.Reference))
		t.line("       %s", clean(scopeText(m.Entry)))
	}
}

// scopeText is an entry in one line.
func scopeText(e authorised.Entry) string {
	parts := []string{"from " + strings.Join(e.From, ",")}
	add := func(word string, list []string) {
		if len(list) > 0 {
			parts = append(parts, word+" "+strings.Join(list, ","))
		}
	}
	add("to", e.To)
	add("sent to", texts(e.Outer))
	add("only of", texts(e.Inner))
	add("only VLAN", texts(e.VLANs))
	add("by", e.Mechanisms)
	if !e.Leaves() {
		parts = append(parts, "nothing leaves the router")
	}
	parts = append(parts, fmt.Sprintf("at most %d packets a second", e.MaxRate),
		e.NotBefore.Format(time.RFC3339)+" until "+e.Until.Format(time.RFC3339))
	if len(e.Devices) != 1 || e.Devices[0] != "*" {
		add("on", e.Devices)
	}
	return strings.Join(parts, "; ")
}

func texts[T any](list []T) []string {
	var out []string
	for _, v := range list {
		out = append(out, fmt.Sprint(v))
	}
	return out
}

func (a *app) mirrorRevoke() *cobra.Command {
	var owner, as, reason string
	c := &cobra.Command{
		Use: "revoke MIRROR FILE", Short: "End an authorised mirror before its time; one approver is enough",
		Long: "MIRROR is its ID or the reference of its approval. From then on approvers.json in --owner refuses older files: put both\n" +
			"files on the routers.",
		Args: args("MIRROR, its ID or reference", "FILE, of authorised mirrors"),
	}
	c.Flags().StringVar(&owner, "owner", "", "`DIR` with approvers.json and your keys")
	c.Flags().StringVar(&as, "as", "", "your `NAME` among the approvers (default: the only one whose keys are in --owner)")
	c.Flags().StringVar(&reason, "reason", "", "why, for those who read the list")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := need(c, "owner", "reason"); err != nil {
			return err
		}
		return inVerb("mirror revoke", a.revoke(owner, as, args[0], args[1], reason))
	}
	return c
}

func (a *app) revoke(owner, as, mirror, path, reason string) error {
	trust, err := a.approvers(owner)
	if err != nil {
		return err
	}
	who, keys, err := approverKeys(owner, as)
	if err != nil {
		return err
	}
	file, set, err := readMirrors(path, trust)
	if err != nil {
		return err
	}
	found := set.List().Find(mirror)
	if len(found) == 0 {
		return fmt.Errorf("%s allows no mirror %q", path, mirror)
	}
	now, number := a.now().UTC().Truncate(time.Second), set.Number()
	for _, e := range found {
		if strings.HasPrefix(set.State(e, now), "revoked") {
			continue
		}
		number++
		if file, err = file.Revoke(authorised.Revocation{ID: e.ID, Time: now, Reason: reason}, number, keys); err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "Revoked %s (%s), signed by %s.\n", e.ID, clean(e.Reference), who)
	}
	if number == set.Number() {
		return fmt.Errorf("%q is revoked already", mirror)
	}
	if _, err := writeMirrors(path, file, trust); err != nil {
		return err
	}
	trust.Least = number
	if err := writeApprovers(owner, trust); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s has number %d now, and %s refuses older ones: put both on the routers.\n", path, number, filepath.Join(owner, approversFile))
	return nil
}
