package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"waxseal/fleet/challenge"
	"waxseal/fleet/enroll"
	"waxseal/measure/evidence"
)

func (a *app) enroll() *cobra.Command {
	var owner, maker, serial string
	var timeout time.Duration
	var replace bool
	c := &cobra.Command{
		Use: "enroll ADDRESS", Short: "Give a router the owner's certificates",
		Long: "Checks the maker's certificates of the router's keys, gives both keys certificates of the owner, installs them,\n" +
			"and challenges the router once, by which it proves that it holds its attestation key.",
		Args: args("ADDRESS, the router's host[:port]"),
	}
	c.Flags().StringVar(&owner, "owner", "", "directory made by 'waxseal owner init'")
	c.Flags().StringVar(&maker, "vendor-ca", "", "PEM `FILE` with the maker's CA certificates")
	c.Flags().StringVar(&serial, "serial", "", "serial number that the router must have (default: the one that its maker certifies)")
	c.Flags().BoolVar(&replace, "replace", false, "accept other keys than the router was enrolled with: its board was replaced")
	c.Flags().DurationVar(&timeout, "timeout", time.Minute, "for the whole enrollment")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := need(c, "owner", "vendor-ca"); err != nil {
			return err
		}
		config, err := enrollConfig(owner, maker)
		if err != nil {
			return err
		}
		config.Address, config.Serial, config.Timeout, config.Now = args[0], serial, timeout, a.now
		config.Step, config.Replace = a.progress, replace
		r, err := enroll.Enroll(c.Context(), config)
		a.progress("")
		if err != nil {
			return err
		}
		return a.enrolled(r, serial)
	}
	return c
}

func enrollConfig(owner, maker string) (enroll.Config, error) {
	ca, err := enroll.OpenCA(owner)
	if err != nil {
		return enroll.Config{}, fmt.Errorf("--owner: %w", err)
	}
	cred, err := enroll.OpenCredentials(owner)
	if err != nil {
		return enroll.Config{}, fmt.Errorf("--owner: %w", err)
	}
	vendor, err := enroll.ReadCertificates(maker)
	if err != nil {
		return enroll.Config{}, fmt.Errorf("--vendor-ca: %w", err)
	}
	return enroll.Config{
		Maker: vendor, Roots: cred.Roots, Issuer: ca, Client: cred.Client,
		Ledger: enroll.FileLedger{Dir: filepath.Join(owner, enroll.LedgerDir)},
	}, nil
}

// enrolled reports an enrolled router. It has failed if the router did not
// prove that it holds its attestation key.
func (a *app) enrolled(r enroll.Result, expected string) error {
	fmt.Fprintf(a.stdout, "%s is enrolled: it shows the owner's certificate.\n", evidence.Escape(r.Serial))
	if expected == "" {
		fmt.Fprintln(a.stdout, "Its serial number is the one that its maker certifies; it was not compared with one that you expect (--serial).")
	}
	if r.First.Outcome == challenge.Genuine {
		fmt.Fprintln(a.stdout, "It has proven that it holds its attestation key.")
		return nil
	}
	fmt.Fprintln(a.stdout, "It has NOT proven that it holds its attestation key:")
	for _, reason := range r.First.Verdict.Reasons {
		fmt.Fprintf(a.stdout, "  %s\n", clean(reason))
	}
	return verdictCode(r.First)
}
