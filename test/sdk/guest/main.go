// Command guest is the app of package behaviour.
package main

import "github.com/freshet-dev/freshet/test/sdk/behaviour"

func main() { behaviour.New().App.Main() }
