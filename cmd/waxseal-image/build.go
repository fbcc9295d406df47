package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"waxseal/images"
)

func buildCommand() *cobra.Command {
	spec := images.Spec{}
	var out, top string
	cmd := &cobra.Command{
		Use:   "build --board NAME --out DIR",
		Short: "Make a bootable image; two builds of one source are byte-identical",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if spec.Kernel == "" {
				if spec.Kernel, err = images.KernelDir(); err != nil {
					return err
				}
			}
			spec.Agent, spec.Userland, err = images.BuildPrograms(cmd.Context(), top, filepath.Join(out, "programs"))
			if err != nil {
				return err
			}
			if err := images.Build(cmd.Context(), spec, out); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: image for board %s\n", out, spec.Board)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&spec.Board, "board", "qemu-amd64", "board, a folder of images/boards")
	f.StringVar(&out, "out", "", "folder for the image")
	f.StringVar(&spec.OwnerCA, "owner-ca", "", "PEM file with the owner's trust anchors; without it the device has no owner")
	f.StringVar(&spec.Approvers, "approvers", "", "file with those who may authorise mirrors, which waxseal mirror approver makes; it is measured")
	f.StringVar(&spec.Mirrors, "mirrors", "", "file of authorised mirrors, which waxseal mirror authorise makes; it is signed, and not measured")
	f.StringVar(&spec.Kernel, "kernel", "", "folder of an unpacked kernel package; empty: the one that scripts/setup fetched")
	f.StringVar(&top, "source", ".", "source tree of waxseal")
	cmd.MarkFlagRequired("out")
	return cmd
}

func predictCommand() *cobra.Command {
	var o images.PredictOptions
	cmd := &cobra.Command{
		Use:   "predict DIR",
		Short: "Write the reference values of an image that was not booted to DIR/" + images.ReferenceFile,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := images.Predict(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			b, err := v.Encode()
			if err != nil {
				return err
			}
			file := filepath.Join(args[0], images.ReferenceFile)
			if err := os.WriteFile(file, b, 0o644); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d items, %d firmware events, assurance %s\n", file, len(v.Items), len(v.Firmware), v.Assurance)
			return nil
		},
	}
	cmd.Flags().BoolVar(&o.Direct, "direct", false, "for a start without firmware: assurance self")
	cmd.Flags().StringVar(&o.Version, "version", "", "the release that the image belongs to")
	return cmd
}

func tamperCommand() *cobra.Command {
	long := "Copy an image and change one thing in the copy, as an attacker would:\n\n"
	for _, t := range images.Tamperings {
		long += fmt.Sprintf("  %-12s %s\n", t.Name, t.Does)
	}
	return &cobra.Command{
		Use:   "tamper DIR WHAT OUT",
		Short: "Copy an image and change one thing in the copy",
		Long:  long,
		Args:  cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := images.Tamper(cmd.Context(), args[0], args[1], args[2])
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s; a verdict must name %s\n", args[2], t.Does, t.Culprit)
			return nil
		},
	}
}
