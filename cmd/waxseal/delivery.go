package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"waxseal/fleet/challenge"
	"waxseal/fleet/delivery"
	"waxseal/fleet/enroll"
	"waxseal/measure/manifest"
	"waxseal/measure/manifest/sealed"
	"waxseal/measure/reference"
)

func (a *app) delivery() *cobra.Command {
	return a.group("delivery", "The doorstep check of a device that was shipped", a.deliveryCheck(), a.deliveryVerify())
}

const deliveryExits = `Exit codes: 0 accepted, 1 error or not proven, 2 usage, 3 refused, 4 unreachable.`

// doorstep are the flags of both verbs: whom to believe, and the secret.
type doorstep struct {
	sign, vendor, ek   string
	secret, secretFile string
}

func (d *doorstep) flags(c *cobra.Command) {
	c.Flags().StringVar(&d.sign, "vendor-sign", "", "`FILE` of the maker's two public signing keys, from elsewhere than the manifest")
	c.Flags().StringVar(&d.vendor, "vendor-ca", "", "PEM `FILE` with the maker's CA certificates")
	c.Flags().StringVar(&d.ek, "ek-ca", "", "PEM `FILE` with the CA certificates of the TPM's maker")
	c.Flags().StringVar(&d.secret, "secret", "", "the secret of the shipment; other users of this computer may see it")
	c.Flags().StringVar(&d.secretFile, "secret-file", "", "`FILE` with the secret of the shipment in its only line")
}

// trust reads what the flags name.
func (d *doorstep) trust(c *cobra.Command) (t delivery.Trust, err error) {
	if d.sign != "" {
		b, err := readFile(d.sign, sealed.MaxKeyFile)
		if err != nil {
			return t, fmt.Errorf("--vendor-sign: %w", err)
		}
		keys, err := sealed.ParseTrust(b)
		if err != nil {
			return t, fmt.Errorf("--vendor-sign: %s: %w", d.sign, err)
		}
		t.Maker = &keys
	}
	if d.vendor != "" {
		if t.VendorCA, err = enroll.ReadCertificates(d.vendor); err != nil {
			return t, fmt.Errorf("--vendor-ca: %w", err)
		}
	}
	if d.ek != "" {
		if t.EKCA, err = enroll.ReadCertificates(d.ek); err != nil {
			return t, fmt.Errorf("--ek-ca: %w", err)
		}
	}
	t.Secret, err = d.readSecret(c)
	return t, err
}

// readSecret returns the secret, nil if none was given.
func (d *doorstep) readSecret(c *cobra.Command) (*manifest.Secret, error) {
	text, flag := d.secret, "--secret"
	switch {
	case d.secret != "" && d.secretFile != "":
		return nil, usageError{c.CommandPath(), errors.New("--secret and --secret-file are both there")}
	case d.secretFile != "":
		b, err := readFile(d.secretFile, 256)
		if err != nil {
			return nil, fmt.Errorf("--secret-file: %w", err)
		}
		text, flag = strings.TrimSpace(string(b)), "--secret-file"
	case d.secret == "":
		return nil, nil
	}
	secret, err := manifest.ParseSecret(text)
	if err != nil {
		return nil, usageError{c.CommandPath(), fmt.Errorf("%s: %w", flag, err)}
	}
	return &secret, nil
}

func (a *app) deliveryCheck() *cobra.Command {
	var d doorstep
	var file, ref, owner, save string
	format := tableFormat
	c := &cobra.Command{
		Use: "check ADDRESS", Short: "Tell whether a device is the one that was shipped, as it was shipped",
		Long: "Asks a device that was just unpacked to prove that it has the TPM of the manifest, that it boots what was shipped,\n" +
			"and how often it was started since. It needs no network but a cable, and no owner. Nothing is accepted without\n" +
			"--vendor-sign: a manifest whose signatures were not checked may be anybody's.\n\n" + deliveryExits,
		Args: args("ADDRESS, the device's host[:port]"),
	}
	c.Flags().StringVar(&file, "manifest", "", "`FILE`, the shipment manifest")
	d.flags(c)
	c.Flags().StringVar(&ref, "reference", "", "`FILE` of reference values (default: those in the manifest)")
	c.Flags().StringVar(&owner, "owner", "", "directory made by 'waxseal owner init': signs what --save writes, and is shown to a device that has this owner")
	c.Flags().StringVar(&save, "save", "", "write all that was said to `FILE` and its seal to FILE.seal")
	c.Flags().VarP(&format, "output", "o", "table or json")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := need(c, "manifest"); err != nil {
			return err
		}
		if save != "" && owner == "" {
			return usageError{c.CommandPath(), errors.New("--save needs --owner, whose key signs the file: 'waxseal owner init DIR' makes one")}
		}
		config, err := d.config(c, file, ref, owner)
		if err != nil {
			return err
		}
		config.Address, config.Now = args[0], a.now
		a.progress("asking " + args[0])
		r, err := delivery.Check(c.Context(), config)
		a.progress("")
		if err != nil {
			return err
		}
		if err := a.saveCheck(save, r, config.Client); err != nil {
			return err
		}
		return a.showReport(format, r.Report)
	}
	return c
}

func (d *doorstep) config(c *cobra.Command, file, ref, owner string) (delivery.Config, error) {
	var config delivery.Config
	var err error
	if config.Trust, err = d.trust(c); err != nil {
		return config, err
	}
	if config.Trust.Secret == nil {
		return config, usageError{c.CommandPath(), errors.New("need --secret or --secret-file: the secret of the shipment")}
	}
	config.Secret = *config.Trust.Secret
	if config.Manifest, err = readFile(file, sealed.MaxFile); err != nil {
		return config, fmt.Errorf("--manifest: %w", err)
	}
	if ref != "" {
		if config.Reference, err = readFile(ref, reference.MaxSize); err != nil {
			return config, fmt.Errorf("--reference: %w", err)
		}
	}
	if owner == "" {
		return config, nil
	}
	cred, err := enroll.OpenCredentials(owner)
	if err != nil {
		return config, fmt.Errorf("--owner: %w", err)
	}
	config.Client = &cred.Client
	return config, nil
}

// saveCheck writes all that was said, whatever came of it, and its seal.
func (a *app) saveCheck(path string, r delivery.Result, signer *tls.Certificate) error {
	if path == "" {
		return nil
	}
	if r.Transcript == nil {
		fmt.Fprintf(a.stderr, "waxseal: nothing was saved to %s: nothing was said\n", clean(path))
		return nil
	}
	b, err := delivery.Saved{Transcript: *r.Transcript, Outcome: r.Report.Outcome, Reasons: r.Report.Reasons}.Encode()
	if err != nil {
		return fmt.Errorf("--save: %w", err)
	}
	seal, err := challenge.Seal(b, *signer)
	if err != nil {
		return fmt.Errorf("--save: %w", err)
	}
	if err := errors.Join(writeFile(path, b), writeFile(path+sealSuffix, seal)); err != nil {
		return fmt.Errorf("--save: %w", err)
	}
	return nil
}

func (a *app) deliveryVerify() *cobra.Command {
	var d doorstep
	var owner, at string
	format := tableFormat
	c := &cobra.Command{
		Use: "verify FILE", Short: "Judge a saved doorstep check, without the device and without a network",
		Long: "Judges anew what 'waxseal delivery check --save' has written. Nothing is accepted without --vendor-sign and\n" +
			"--owner-ca: only the buyer's seal (FILE.seal) tells answers that were asked for from answers that were made up.\n\n" + deliveryExits,
		Args: args("FILE, the saved check"),
	}
	d.flags(c)
	c.Flags().StringVar(&owner, "owner-ca", "", "PEM `FILE` with the CA certificate of the buyer who sealed the file")
	c.Flags().StringVar(&at, "at", "", "judge the buyer's certificate at this `TIME` (RFC 3339; default: now)")
	c.Flags().VarP(&format, "output", "o", "table or json")
	c.RunE = func(c *cobra.Command, args []string) error {
		now, err := a.moment(c, at)
		if err != nil {
			return err
		}
		r, err := verifyCheck(c, d, args[0], owner, now)
		if err != nil {
			return err
		}
		return a.showReport(format, r)
	}
	return c
}

func verifyCheck(c *cobra.Command, d doorstep, path, owner string, now time.Time) (r delivery.Report, err error) {
	trust, err := d.trust(c)
	if err != nil {
		return r, err
	}
	data, err := readFile(path, delivery.MaxFile)
	if err != nil {
		return r, err
	}
	if owner == "" {
		r, err = delivery.Verify(data, nil, nil, trust, now)
		return r, named(path, err)
	}
	owners, err := enroll.ReadCertificates(owner)
	if err != nil {
		return r, fmt.Errorf("--owner-ca: %w", err)
	}
	seal, err := readFile(path+sealSuffix, challenge.MaxSeal)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	r, err = delivery.Verify(data, seal, owners, trust, now)
	return r, named(path, err)
}

func named(path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", path, err)
}
