package main

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"waxseal/fleet/appraise"
	"waxseal/fleet/challenge"
	"waxseal/fleet/enroll"
	"waxseal/measure"
	"waxseal/measure/evidence"
	"waxseal/measure/reference"
)

func (a *app) evidence() *cobra.Command {
	return a.group("evidence", "Evidence files", a.evidenceVerify())
}

func (a *app) evidenceVerify() *cobra.Command {
	var ref, trust, serial, at string
	format := tableFormat
	c := &cobra.Command{
		Use: "verify FILE", Short: "Verify and judge a saved evidence file, without network or server",
		Long: "Verifies evidence that 'waxseal attest --save' has written, and judges it by reference values. Whether it was fresh\n" +
			"when it was taken only its seal can say.\n\n" + exitHelp,
		Args: args("FILE, the evidence"),
	}
	c.Flags().StringVar(&ref, "reference", "", "`FILE` of reference values")
	c.Flags().StringVar(&trust, "trust", "", "PEM `FILE` with the owner's CA certificate")
	c.Flags().StringVar(&serial, "serial", "", "serial number that the router must have (default: any)")
	c.Flags().StringVar(&at, "at", "", "judge the certificates at this `TIME` (RFC 3339; default: now)")
	c.Flags().VarP(&format, "output", "o", "table or json")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := need(c, "trust"); err != nil {
			return err
		}
		now, err := a.moment(c, at)
		if err != nil {
			return err
		}
		roots, err := enroll.ReadCertificates(trust)
		if err != nil {
			return fmt.Errorf("--trust: %w", err)
		}
		values, err := readReference(ref)
		if err != nil {
			return err
		}
		text, err := readFile(args[0], evidence.MaxFile)
		if err != nil {
			return err
		}
		ev, err := evidence.Parse(text)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		return a.show(format, offline(ev, values, evidence.Trust{Roots: roots, Serial: serial, Now: now}))
	}
	return c
}

func (a *app) moment(c *cobra.Command, at string) (time.Time, error) {
	if at == "" {
		return a.now(), nil
	}
	t, err := time.Parse(time.RFC3339, at)
	if err != nil {
		return t, usageError{c.CommandPath(), fmt.Errorf("--at: %q is no time such as 2026-07-01T12:00:00Z", at)}
	}
	return t, nil
}

// offline judges evidence by itself: the challenge is taken from it.
func offline(ev evidence.Evidence, ref *reference.Values, trust evidence.Trust) challenge.Result {
	ch := evidence.Challenge{
		Nonce: ev.Nonce, Bank: ev.Bank, PCRs: slices.Sorted(maps.Keys(ev.PCRs)),
		Issued: ev.Received, Deadline: ev.Received.Add(time.Nanosecond), UnsafeClock: true,
	}
	if ref != nil {
		ch.Profile, _ = measure.ParseProfile(ref.Profile) // reference.Parse has checked it
	}
	v, err := evidence.Verify(ev, ch, trust)
	if err != nil {
		return challenge.RefusedResult(err)
	}
	r := challenge.Judge(v, ref, appraise.DefaultPolicy)
	r.Evidence, r.Challenge = &ev, ch
	return r
}
