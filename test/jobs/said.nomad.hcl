# What an image says that was built before.
variable "image" {
  type = string
}

job "said" {
  type = "batch"

  group "said" {
    task "said" {
      driver = "freshet"

      config {
        image        = var.image
        network_mode = "none"
      }
    }
  }
}
