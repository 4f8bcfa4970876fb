"""Episodes: received, scored under the policy that acted, collected."""
