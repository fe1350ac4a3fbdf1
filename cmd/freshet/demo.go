package main

import "github.com/spf13/cobra"

func newDemo(env environment) *cobra.Command { return &cobra.Command{Use: "demo"} }
