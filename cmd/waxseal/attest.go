package main

import (
	"crypto/tls"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"waxseal/fleet/appraise"
	"waxseal/fleet/challenge"
	"waxseal/fleet/enroll"
	"waxseal/measure/reference"
)

func (a *app) attest() *cobra.Command {
	var owner, ref, serial, save string
	var timeout time.Duration
	var strictClock, batched bool
	var form evidenceForm
	format := tableFormat
	c := &cobra.Command{
		Use: "attest ADDRESS", Short: "Challenge a router and judge what it booted",
		Long: "Challenges a router, verifies its answer and judges it by reference values. Without --reference it only says\n" +
			"whether the evidence is genuine.\n\n" + exitHelp,
		Args: args("ADDRESS, the router's host[:port]"),
	}
	c.Flags().StringVar(&owner, "owner", "", "directory made by 'waxseal owner init'")
	c.Flags().StringVar(&ref, "reference", "", "`FILE` of reference values")
	c.Flags().StringVar(&serial, "serial", "", "serial number that the router must have (default: the one enrolled under ADDRESS)")
	c.Flags().StringVar(&save, "save", "", "write the evidence to `FILE` and its seal to FILE.seal")
	c.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "for the router's answer")
	c.Flags().BoolVar(&batched, "batched", false, "ask for a quote that answers others too, as many as wait for one (waxseal agents only)")
	c.Flags().Var(&form, "format", "in which the router is to answer: raw, eat-jwt or eat-cwt; --save then keeps the token too, in FILE.jwt or FILE.cwt")
	c.Flags().BoolVar(&strictClock, "require-safe-clock", false, "refuse a TPM whose clock is not safe, as it is for a while after a power cut")
	c.Flags().VarP(&format, "output", "o", "table or json")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := need(c, "owner"); err != nil {
			return err
		}
		cred, err := enroll.OpenCredentials(owner)
		if err != nil {
			return fmt.Errorf("--owner: %w", err)
		}
		values, err := readReference(ref)
		if err != nil {
			return err
		}
		a.progress("challenging " + args[0])
		r, err := challenge.Challenge(c.Context(), challenge.Config{
			Address: args[0], Roots: cred.Roots, Client: cred.Client, Serial: serial, Batched: batched, Format: form.Format, Reference: values,
			Timeout: timeout, Now: a.now, UnsafeClock: !strictClock, AllTexts: save != "",
		})
		a.progress("")
		if err != nil {
			return err
		}
		r = enrolledOnly(owner, r)
		if err := a.save(save, r, cred.Client); err != nil {
			return err
		}
		if err := a.saveToken(save, r, form); err != nil {
			return err
		}
		return a.show(format, r)
	}
	return c
}

const exitHelp = `Exit codes: 0 affirming, 1 error or not judged (no --reference), 2 usage, 3 failed verdict or refused, 4 unreachable.`

// readReference reads reference values; without a path there are none.
func readReference(path string) (*reference.Values, error) {
	if path == "" {
		return nil, nil
	}
	b, err := readFile(path, reference.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("--reference: %w", err)
	}
	v, err := reference.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("--reference: %s: %w", path, err)
	}
	return &v, nil
}

// sealSuffix is appended to the name of an evidence file for that of its seal.
const sealSuffix = ".seal"

// save writes the evidence, if any came and whatever it is worth, and its seal
// beside it.
func (a *app) save(path string, r challenge.Result, verifier tls.Certificate) error {
	if path == "" {
		return nil
	}
	if r.Evidence == nil {
		fmt.Fprintf(a.stderr, "waxseal: nothing was saved to %s: the router sent no evidence\n", clean(path))
		return nil
	}
	b, err := r.Evidence.Encode()
	if err != nil {
		return fmt.Errorf("--save: %w", err)
	}
	seal, err := challenge.Seal(b, verifier)
	if err != nil {
		return fmt.Errorf("--save: %w", err)
	}
	if err := writeFile(path, b); err != nil {
		return fmt.Errorf("--save: %w", err)
	}
	if err := writeFile(path+sealSuffix, seal); err != nil {
		return fmt.Errorf("--save: %w", err)
	}
	return nil
}

// verdictCode returns the exit code of a result.
func verdictCode(r challenge.Result) error {
	switch {
	case r.Outcome == challenge.Unreachable:
		return exitCode(exitUnreachable)
	case r.Outcome == challenge.Genuine:
		return exitCode(exitError) // nothing was judged, and 0 is said for nothing but a good boot
	case r.Outcome == challenge.Judged && r.Verdict.Result == appraise.Affirming:
		return nil
	}
	return exitCode(exitFailed)
}
