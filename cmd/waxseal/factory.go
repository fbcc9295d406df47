package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"waxseal/hw/tpm"
	"waxseal/images/factory"
	"waxseal/measure/manifest"
	"waxseal/measure/manifest/sealed"
	"waxseal/measure/reference"
)

func (a *app) factory() *cobra.Command {
	return a.group("factory", "The maker's side: give a router its identity, and pack it", a.factoryProvision())
}

// provisioning is the command line of factory provision.
type provisioning struct {
	tpm, ca, ekCA, serial, reference, out, secretFile string
	packing                                           factory.Packing
	apart, repack, replace                            bool
}

func (a *app) factoryProvision() *cobra.Command {
	var p provisioning
	c := &cobra.Command{
		Use: "provision", Short: "Give a router's TPM its keys and certificates, and write the signed shipment manifest",
		Long: "Makes IAK and IDevID in the TPM, checks the certificates of its endorsement keys, certifies both keys for the serial\n" +
			"number, and writes what the buyer checks the delivery by. The secret of the shipment is shown once and kept nowhere:\n" +
			"send it to the buyer by another way than the router. Run again for the same shipment it changes nothing.",
		Args: args(),
	}
	f := c.Flags()
	f.StringVar(&p.tpm, "tpm", "", "`PATH` of the router's TPM: a device such as /dev/tpmrm0, or a state directory of the lab")
	f.StringVar(&p.ca, "ca", "", "`DIR` of the vendor's CA and signing keys; it is made where there is none")
	f.StringVar(&p.ekCA, "ek-ca", "", "PEM `FILE` with the CA certificates of the TPM's maker (needed for a device)")
	f.StringVar(&p.serial, "serial", "", "the router's serial number")
	f.StringVar(&p.reference, "reference", "", "`FILE` of reference values of what is installed")
	f.StringVar(&p.packing.Order, "order", "", "number of the buyer's order")
	f.StringVar(&p.packing.SealID, "seal-id", "", "number of the tamper-evident tape around the box")
	f.StringVar(&p.out, "out", "", "`FILE` for the shipment manifest")
	f.StringVar(&p.packing.Product, "product", "", "board or part (default: the one of the reference values)")
	f.StringVar(&p.packing.Maker, "maker", "", "name of the maker (default: the organization of the CA)")
	f.Uint32Var(&p.packing.MaxResets, "max-resets", 3, "how often the TPM may be reset until the buyer checks the delivery, his own start included")
	f.StringVar(&p.secretFile, "secret-file", "", "write the secret to `FILE` instead of showing it")
	f.BoolVar(&p.apart, "reference-apart", false, "put only the digest of the reference values into the manifest")
	f.BoolVar(&p.repack, "repack", false, "pack again: a new manifest and a new secret in place of those that are there")
	f.BoolVar(&p.replace, "replace-board", false, "the serial number may come with another TPM than before: its board was replaced")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := need(c, "tpm", "ca", "serial", "reference", "order", "seal-id", "out"); err != nil {
			return err
		}
		if factory.IsDevice(p.tpm) && p.ekCA == "" {
			return usageError{c.CommandPath(), errors.New("need --ek-ca for a TPM device: whose make it is must be known")}
		}
		if err := a.provision(c.Context(), p); err != nil {
			return fmt.Errorf("factory provision: %w", err)
		}
		return nil
	}
	return c
}

func (a *app) provision(ctx context.Context, p provisioning) error {
	if inside(p.ca, p.secretFile) {
		return fmt.Errorf("--secret-file %s: no secret of a shipment is kept beside the keys in --ca", p.secretFile)
	}
	if err := p.readReference(); err != nil {
		return err
	}
	ca, err := factory.OpenOrMakeCA(p.ca, a.now())
	if err != nil {
		return err
	}
	if p.ekCA != "" {
		if err := ca.TrustEKs(p.ekCA); err != nil {
			return fmt.Errorf("--ek-ca: %w", err)
		}
	}
	p.fill(ca)
	var r factory.Receipt
	var file []byte
	a.progress("provisioning " + p.serial)
	err = ca.OnTPM(ctx, p.tpm, p.serial, func(dev *tpm.Device) error {
		if err := ca.Claim(ctx, dev, p.serial, p.replace); err != nil {
			return err
		}
		if r, err = factory.Provision(ctx, dev, ca, p.serial); err != nil {
			return err
		}
		if there, err := p.packed(ca, r); there || err != nil {
			return err
		}
		if p.packing.Secret, err = manifest.NewSecret(rand.Reader); err != nil {
			return err
		}
		p.packing.Time = a.now()
		file, err = factory.Pack(ctx, dev, ca, r, p.packing)
		return err
	})
	a.progress("")
	if err != nil {
		return err
	}
	return a.provisioned(p, r, file)
}

// readReference reads what is installed on the router, and what it is for.
func (p *provisioning) readReference() error {
	b, err := readFile(p.reference, reference.MaxSize)
	if err != nil {
		return fmt.Errorf("--reference: %w", err)
	}
	v, err := reference.Parse(b)
	if err != nil {
		return fmt.Errorf("--reference: %s: %w", p.reference, err)
	}
	p.packing.Reference, p.packing.Embed = b, !p.apart
	if p.packing.Product == "" {
		p.packing.Product = v.Product
	}
	return nil
}

func (p *provisioning) fill(ca *factory.CA) {
	if p.packing.Maker == "" {
		p.packing.Maker = strings.Join(ca.Certificate.Subject.Organization, ", ")
	}
}

// packed tells whether the manifest of this very shipment is there already.
// One of another is an error.
func (p *provisioning) packed(ca *factory.CA, r factory.Receipt) (bool, error) {
	file, err := readFile(p.out, sealed.MaxFile)
	if errors.Is(err, fs.ErrNotExist) || p.repack {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	trust, err := ca.Trust()
	if err != nil {
		return false, err
	}
	s, err := manifest.Open(file, trust)
	if err != nil {
		return false, fmt.Errorf("%s is there already: %w", p.out, err)
	}
	if err := r.Fits(s); err != nil {
		return false, fmt.Errorf("%s is there already: %w", p.out, err)
	}
	digest := sha256.Sum256(p.packing.Reference)
	k := p.packing
	if s.Order != k.Order || s.SealID != k.SealID || s.Product != k.Product || s.Maker != k.Maker || s.MaxResets != k.MaxResets ||
		!bytes.Equal(s.ReferenceSHA256, digest[:]) {
		return false, fmt.Errorf("%s is there already, for order %s and tape %s: with --repack it is replaced, and its secret is void", p.out, s.Order, s.SealID)
	}
	return true, nil
}

// provisioned writes what came of it, the manifest last: if it is there, the
// shipment is complete.
func (a *app) provisioned(p provisioning, r factory.Receipt, file []byte) error {
	fmt.Fprintf(a.stdout, "%s is provisioned.\n\nEK       %s\n", r.Serial, r.EK.Name)
	if r.EK384 != nil {
		fmt.Fprintf(a.stdout, "EK384    %s\n", r.EK384.Name)
	}
	fmt.Fprintf(a.stdout, "IAK      %s\nIDevID   %s\n\n", r.IAK.Name, r.IDevID.Name)
	if file == nil {
		fmt.Fprintf(a.stdout, "It is packed already: %s is as it was, and its secret was shown then.\n", p.out)
		return nil
	}
	if p.secretFile != "" {
		if err := writeFile(p.secretFile, []byte(p.packing.Secret.Text()+"\n")); err != nil {
			return fmt.Errorf("--secret-file: %w", err)
		}
	}
	if err := writeFile(p.out, file); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	fmt.Fprintf(a.stdout, "Manifest %s\nKeys     %s: what the buyer verifies it with\n", p.out, filepath.Join(p.ca, factory.SignFile))
	if p.secretFile != "" {
		fmt.Fprintf(a.stdout, "Secret   in %s: send it by another way than the router, then delete it\n", p.secretFile)
		return nil
	}
	fmt.Fprintf(a.stdout, "Secret   %s\n\nThe secret is shown this once and kept nowhere: send it by another way than the router.\n", p.packing.Secret.Text())
	return nil
}

// inside tells whether a file would lie in a directory or below it.
func inside(dir, file string) bool {
	if file == "" {
		return false
	}
	rel, err := filepath.Rel(resolved(dir), filepath.Join(resolved(filepath.Dir(file)), filepath.Base(file)))
	return err == nil && filepath.IsLocal(rel)
}

// resolved is the absolute path of a directory without symbolic links, as far
// as it exists.
func resolved(dir string) string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return dir
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real
	}
	return abs
}
