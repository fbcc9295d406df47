package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"waxseal/measure/authorised"
	"waxseal/measure/manifest/sealed"
)

// approversFile names in an owner's directory who may authorise mirrors. It
// also goes onto the routers' configuration partition.
const approversFile = "approvers.json"

// approverFile is a person's keys in an owner's directory.
func approverFile(dir, name, kind string) string { return filepath.Join(dir, "approver-"+name+kind) }

func (a *app) mirrorApprover() *cobra.Command {
	var owner, public string
	var approvals int
	c := &cobra.Command{
		Use: "approver NAME", Short: "Name somebody who may authorise mirrors, and say how many must",
		Long: "Makes his keys in the owner's directory, or takes the public ones that he made in a directory of his own.\n" +
			"approvers.json of the directory is what routers believe: put it on their configuration partition.",
		Args: args("NAME, of the person"),
	}
	c.Flags().StringVar(&owner, "owner", "", "`DIR` of the owner, where approvers.json is, or is made")
	c.Flags().StringVar(&public, "public", "", "`FILE` of his two public keys, approver-NAME.pem of his own directory")
	c.Flags().IntVar(&approvals, "approvals", 0, "how many people must sign from now on (default: as before, at first 1)")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := need(c, "owner"); err != nil {
			return err
		}
		if !plainName(args[0]) {
			return usageError{c.CommandPath(), fmt.Errorf("%q is no name: need letters, digits, - or _", args[0])}
		}
		if err := a.addApprover(owner, args[0], public, approvals); err != nil {
			return fmt.Errorf("mirror approver: %w", err)
		}
		return nil
	}
	return c
}

func plainName(name string) bool {
	return name != "" && len(name) <= 32 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}

func (a *app) addApprover(owner, name, public string, approvals int) error {
	all, err := readApprovers(filepath.Join(owner, approversFile))
	if errors.Is(err, fs.ErrNotExist) {
		all, err = authorised.Approvers{Format: authorised.ApproversFormat, Approvals: 1}, os.MkdirAll(owner, 0o700)
	}
	if err != nil {
		return err
	}
	trust, err := publicKeys(owner, name, public)
	if err != nil {
		return err
	}
	if approvals != 0 {
		all.Approvals = min(approvals, len(all.People)+1)
	}
	if all, err = all.Add(name, trust); err != nil {
		return err
	}
	if err := writeApprovers(owner, all); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s may authorise mirrors; %d of %d people must sign.\n", name, all.Approvals, len(all.People))
	if approvals > all.Approvals {
		fmt.Fprintf(a.stdout, "%d cannot be asked of %d: name another with --approvals %d.\n", approvals, len(all.People), approvals)
	}
	return nil
}

// publicKeys reads somebody's public keys, or makes keys for him here.
func publicKeys(owner, name, public string) (sealed.Trust, error) {
	if public != "" {
		b, err := readFile(public, sealed.MaxKeyFile)
		if err != nil {
			return sealed.Trust{}, err
		}
		trust, err := sealed.ParseTrust(b)
		if err != nil {
			return sealed.Trust{}, fmt.Errorf("%s: %w", public, err)
		}
		return trust, nil
	}
	path := approverFile(owner, name, ".key")
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return sealed.Trust{}, fmt.Errorf("%s is there already", path)
	}
	keys, err := sealed.NewKeys(rand.Reader)
	if err != nil {
		return sealed.Trust{}, err
	}
	private, err := keys.PEM()
	if err != nil {
		return sealed.Trust{}, err
	}
	open, err := keys.Trust().PEM()
	if err != nil {
		return sealed.Trust{}, err
	}
	return keys.Trust(), errors.Join(writeFile(path, private), writeFile(approverFile(owner, name, ".pem"), open))
}

func writeApprovers(owner string, all authorised.Approvers) error {
	b, err := all.Encode()
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(owner, approversFile), b)
}

func readApprovers(path string) (authorised.Approvers, error) {
	b, err := readFile(path, authorised.MaxApproversSize)
	if err != nil {
		return authorised.Approvers{}, err
	}
	all, err := authorised.ParseApprovers(b)
	if err != nil {
		return authorised.Approvers{}, fmt.Errorf("%s: %w", path, err)
	}
	return all, nil
}

// approverKeys reads the private keys of a person in the owner's directory; of
// the only one there is, if nobody is named.
func approverKeys(owner, name string) (string, sealed.Keys, error) {
	path := approverFile(owner, name, ".key")
	if name == "" {
		found, err := filepath.Glob(approverFile(owner, "*", ".key"))
		if err != nil || len(found) != 1 {
			return "", sealed.Keys{}, fmt.Errorf("%s holds the keys of %d approvers: say with --as who you are", owner, len(found))
		}
		path = found[0]
		name = strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "approver-"), ".key")
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", sealed.Keys{}, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", sealed.Keys{}, fmt.Errorf("%s: others can read it (mode %04o): chmod 600 it", path, info.Mode().Perm())
	}
	b, err := readFile(path, sealed.MaxKeyFile)
	if err != nil {
		return "", sealed.Keys{}, err
	}
	keys, err := sealed.ParseKeys(b)
	if err != nil {
		return "", sealed.Keys{}, fmt.Errorf("%s: %w", path, err)
	}
	return name, keys, nil
}
