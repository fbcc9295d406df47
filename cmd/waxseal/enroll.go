package main

import (
	"crypto/x509"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"waxseal/fleet/challenge"
	"waxseal/fleet/enroll"
	"waxseal/measure/evidence"
	"waxseal/measure/manifest/sealed"
)

// enrollFlags are the flags of enroll.
type enrollFlags struct {
	owner, maker, serial, flow, program string
	ek, ekCA, manifest, sign            string // where the EK is known from
	timeout                             time.Duration
	replace                             bool
}

func (a *app) enroll() *cobra.Command {
	var f enrollFlags
	c := &cobra.Command{
		Use: "enroll ADDRESS", Short: "Give a router the owner's certificates",
		Long: "Finds out who a router is, gives its two keys certificates of the owner, installs them, and challenges the router\n" +
			"once, by which it proves that it holds its attestation key. Who it is, its maker's certificates say (--flow vendor),\n" +
			"or on a router without any, the TPM whose EK the owner knows (--flow hmac).",
		Args: args("ADDRESS, the router's host[:port]"),
	}
	c.Flags().StringVar(&f.owner, "owner", "", "directory made by 'waxseal owner init'")
	c.Flags().StringVar(&f.flow, "flow", "vendor", "how the router is known: vendor (its maker's certificates) or hmac (its EK)")
	c.Flags().StringVar(&f.maker, "vendor-ca", "", "PEM `FILE` with the maker's CA certificates; vendor only")
	c.Flags().StringVar(&f.ek, "ek", "", "PEM `FILE` with the EK of the router's TPM: its public key, or its certificate; hmac only")
	c.Flags().StringVar(&f.ekCA, "ek-ca", "", "PEM `FILE` with the CA certificates of the TPM's maker, for an EK certificate; hmac only")
	c.Flags().StringVar(&f.manifest, "manifest", "", "`FILE`, the shipment manifest, which names EK and serial number; instead of --ek; hmac only")
	c.Flags().StringVar(&f.sign, "vendor-sign", "", "`FILE` of the maker's two public signing keys, for --manifest; hmac only")
	c.Flags().StringVar(&f.serial, "serial", "", "serial number that the router must have (default: the one that its maker certifies)")
	c.Flags().StringVar(&f.program, "ca-command", "", "`PROGRAM` that signs the certificates instead of the owner's CA key")
	c.Flags().BoolVar(&f.replace, "replace", false, "accept other keys than the router was enrolled with: its board was replaced")
	c.Flags().DurationVar(&f.timeout, "timeout", time.Minute, "for the whole enrollment")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := f.check(c); err != nil {
			return err
		}
		config, err := f.config(a.now())
		if err != nil {
			return err
		}
		config.Address, config.Now, config.Step = args[0], a.now, a.progress
		r, err := enroll.Enroll(c.Context(), config)
		a.progress("")
		if err != nil {
			return err
		}
		return a.enrolled(r, f)
	}
	return c
}

// check asks for the flags of the chosen flow, and refuses those of the other.
func (f enrollFlags) check(c *cobra.Command) error {
	var needed, foreign []string
	switch {
	case f.flow == "vendor":
		needed, foreign = []string{"owner", "vendor-ca"}, []string{"ek", "ek-ca", "manifest", "vendor-sign"}
	case f.flow == "hmac" && f.manifest != "":
		needed, foreign = []string{"owner", "vendor-sign"}, []string{"vendor-ca", "ek", "ek-ca"}
	case f.flow == "hmac":
		needed, foreign = []string{"owner", "ek", "serial"}, []string{"vendor-ca", "vendor-sign"}
	default:
		return usageError{c.CommandPath(), fmt.Errorf("--flow %q: need vendor or hmac", f.flow)}
	}
	for _, name := range foreign {
		if c.Flags().Changed(name) {
			return usageError{c.CommandPath(), fmt.Errorf("--%s has no meaning with what else is given", name)}
		}
	}
	return need(c, needed...)
}

// config reads the files that the flags name.
func (f enrollFlags) config(now time.Time) (enroll.Config, error) {
	cred, err := enroll.OpenCredentials(f.owner)
	if err != nil {
		return enroll.Config{}, fmt.Errorf("--owner: %w", err)
	}
	c := enroll.Config{
		Roots: cred.Roots, Client: cred.Client, Serial: f.serial, Timeout: f.timeout, Replace: f.replace,
		Ledger: enroll.FileLedger{Dir: filepath.Join(f.owner, enroll.LedgerDir)},
	}
	if c.Issuer, err = f.issuer(); err != nil {
		return c, err
	}
	if f.flow == "hmac" {
		c.EKs, err = f.knownEK(now)
		return c, err
	}
	if c.Maker, err = enroll.ReadCertificates(f.maker); err != nil {
		return c, fmt.Errorf("--vendor-ca: %w", err)
	}
	return c, nil
}

// issuer is the owner's CA: its key in a file, or a program.
func (f enrollFlags) issuer() (enroll.Issuer, error) {
	if f.program != "" {
		return enroll.ProgramCA{Path: f.program}, nil
	}
	ca, err := enroll.OpenCA(f.owner)
	if err != nil {
		return nil, fmt.Errorf("--owner: %w", err)
	}
	return ca, nil
}

// knownEK reads the EK from the file that says which one it is.
func (f enrollFlags) knownEK(now time.Time) (enroll.EKs, error) {
	if f.manifest != "" {
		return f.shippedEK()
	}
	var ca []*x509.Certificate
	if f.ekCA != "" {
		var err error
		if ca, err = enroll.ReadCertificates(f.ekCA); err != nil {
			return nil, fmt.Errorf("--ek-ca: %w", err)
		}
	}
	ek, err := enroll.ReadEK(f.ek, f.serial, ca, now)
	if err != nil {
		return nil, fmt.Errorf("--ek: %w", err)
	}
	return ek, nil
}

func (f enrollFlags) shippedEK() (enroll.EKs, error) {
	text, err := readFile(f.sign, sealed.MaxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("--vendor-sign: %w", err)
	}
	maker, err := sealed.ParseTrust(text)
	if err != nil {
		return nil, fmt.Errorf("--vendor-sign: %w", err)
	}
	if text, err = readFile(f.manifest, sealed.MaxFile); err != nil {
		return nil, fmt.Errorf("--manifest: %w", err)
	}
	ek, err := enroll.ShippedEK(text, maker)
	if err != nil {
		return nil, fmt.Errorf("--manifest: %w", err)
	}
	return ek, nil
}

// enrolled reports an enrolled router. It has failed if the router did not
// prove that it holds its attestation key.
func (a *app) enrolled(r enroll.Result, f enrollFlags) error {
	fmt.Fprintf(a.stdout, "%s is enrolled: it shows the owner's certificate.\n", evidence.Escape(r.Serial))
	if f.flow == "hmac" {
		fmt.Fprintf(a.stdout, "Its keys are in the TPM of the EK in %s; that this TPM is in %s, that file says.\n", f.ek+f.manifest, evidence.Escape(r.Serial))
	}
	if !r.OneTPM {
		fmt.Fprintln(a.stdout, "That its attestation key and its TLS key are in one TPM was not shown: it does not answer GetIdevidCsr. Its maker says so.")
	}
	if f.serial == "" && f.manifest == "" {
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
