// Package waxseal is the plan of the house; it holds no code.
//
// Three wings stand on one ground floor. The router's wing (hw, boot, agent)
// measures what a router boots and answers challenges. The fleet's wing
// (fleet) asks and judges. The build host's wing (images) makes what a router
// boots and says beforehand what it will measure. They share the language of
// measure, and meet only in cmd.
//
//	measure   what router and fleet both speak; opens nothing
//	hw        TPM, flash, board: the only folder that opens a device
//	boot      what is measured before the hand-over, and the hand-over
//	agent     the part that stays resident and answers
//	fleet     the verifier
//	images    image specification → bootable disk, reference values, QEMU
//	cmd       the programs
//
// The walls between them are in house_test.go, the reasons in
// docs/architecture.md.
package waxseal
